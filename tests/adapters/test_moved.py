"""On policy the ratio is 1 and the KL 0 also where a LoRA adds something: after steps, and from another one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from tests.adapters.moving import NAMES, check_on_policy, loaded, move
from tests.loading.writers import WRITERS


def test_no_written_checkpoint_is_left_out() -> None:
    assert set(WRITERS) == set(NAMES)  # a family without a tiny checkpoint fails below, by its name


@pytest.mark.parametrize("name", NAMES)
def test_ratio_one_where_the_lora_adds_something(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = WRITERS[name](tmp_path / "model")
    adapter = loaded(name, folder)
    move(adapter)
    experience = check_on_policy(adapter, fresh=False)
    assert experience.ref is not None  # the base's: no longer the policy's
    assert (experience.ref.log_prob - experience.old.log_prob).abs().max() > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_run_from_a_lora_with_dropout_starts_at_its_reference(checkpointing: bool, tmp_path: Path) -> None:
    """peft's config of another program's adapter may name a dropout; nothing here may draw it."""
    with torch.random.fork_rng():
        folder = WRITERS["causal_lm"](tmp_path / "model")
    first = loaded("causal_lm", folder)
    move(first, 0.3)
    first.save(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_dropout": 0.5}))
    adapter = loaded("causal_lm", folder, start_lora=str(tmp_path / "lora"), gradient_checkpointing=checkpointing)
    dropped = [part for part in adapter.module.modules() if type(part) is torch.nn.Dropout and part.p == 0.5]
    assert dropped  # it is there
    experience = check_on_policy(adapter, fresh=True)
    assert experience.ref is not None
    assert torch.allclose(experience.ref.log_prob, experience.old.log_prob, atol=1e-5, rtol=1e-5)
    move(adapter)
    check_on_policy(adapter, fresh=False)
