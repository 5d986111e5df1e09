"""A launch whose weights or optimizer state would be cut into pieces is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.run.launch import SHARDED, check_accelerator, check_environment
from mmalign.run.train import train


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """accelerate keeps one state per process; put it back to what it was before the test."""
    from accelerate.state import AcceleratorState, PartialState

    kept = dict(AcceleratorState._shared_state), dict(PartialState._shared_state)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    AcceleratorState._shared_state.update(kept[0])
    PartialState._shared_state.update(kept[1])


@pytest.mark.parametrize(("variable", "name"), [(k, v.split(" (")[0]) for k, v in SHARDED.items()])
def test_a_run_says_so_at_its_start(
    variable: str, name: str, run_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")  # what `accelerate launch --use_fsdp` and its like set
    with pytest.raises(ConfigError) as caught:
        train(load(run_file()), out=tmp_path / "run")
    told = str(caught.value)
    assert told.startswith(f"launch: {name}") and "which mmalign does not support" in told
    assert "in one process or data parallel (accelerate's MULTI_GPU and MULTI_CPU)" in told
    assert "launch with --multi_gpu" in told and "lower trainer.micro_batch_size" in told
    assert not (tmp_path / "run").exists()


def test_plain_launches_pass_and_both_names_are_said(fresh_state: None, caplog: pytest.LogCaptureFixture) -> None:
    from accelerate import Accelerator, DistributedType

    check_environment({"ACCELERATE_USE_FSDP": "false", "ACCELERATE_MIXED_PRECISION": "bf16"})
    assert "mixed_precision bf16 is not followed; adapter.dtype" in caplog.text
    with pytest.raises(ConfigError, match=r"^launch: FSDP and DeepSpeed is configured"):
        check_environment({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_DEEPSPEED": "true"})
    accelerator = Accelerator(cpu=True)
    check_accelerator(accelerator)
    accelerator.gradient_accumulation_steps = 4
    with pytest.raises(ConfigError, match=r"launch: gradient_accumulation_steps is 4, which is not followed"):
        check_accelerator(accelerator)
    accelerator.gradient_accumulation_steps = 1
    for kind in DistributedType:
        accelerator.state.distributed_type = kind
        if kind.value in ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU"):
            check_accelerator(accelerator)
        elif not kind.value.startswith("MULTI_"):
            with pytest.raises(ConfigError, match=f"launch: {kind.value} is configured, which mmalign does not"):
                check_accelerator(accelerator)
