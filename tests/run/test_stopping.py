"""A run that is stopped goes on exactly, or starts again, and its message says how."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmalign.core.config import load
from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.core.types import Prompt
from mmalign.rewards import rule
from mmalign.run.train import Stopped, train

RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{good: {{name: "tests.run.test_stopping:interrupting"}}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt}}
trainer: {{steps: 3, prompts_per_step: 2, lr: 1.0e-2}}
"""
ROWS = 8  # of a step
HERE = ["tests.run.test_stopping"]
PRESSES: dict[int, int] = {}  # how often Ctrl-C is pressed at which call
CALLS = [0]


@rule(modalities={"text"}, range=(0.0, 1.0))
def interrupting(prompt: Prompt, output: str) -> float:
    """The share of an answer's letters that are `o`; at some calls somebody presses Ctrl-C."""
    CALLS[0] += 1
    for _ in range(PRESSES.get(CALLS[0], 0)):
        os.kill(os.getpid(), signal.SIGINT)
    return output.count("o") / max(len(output), 1)


@pytest.fixture
def run_file(tmp_path: Path, lm_folder: Callable[..., Path]) -> Iterator[Path]:
    (tmp_path / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    (tmp_path / "run.yaml").write_text(RUN.format(model=lm_folder("llama")))
    CALLS[0] = 0
    PRESSES.clear()
    yield tmp_path / "run.yaml"
    PRESSES.clear()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_000003" / "state" / "weights.safetensors")


def steps(file: Path) -> list[int]:
    return [line["step"] for line in map(json.loads, file.read_text().splitlines()) if "lr" in line]


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_bit_for_bit(run_file: Path, tmp_path: Path) -> None:
    train(load(run_file), out=tmp_path / "whole", allow=HERE)
    half = tmp_path / "half"
    PRESSES[CALLS[0] + ROWS + 3] = 1  # in the middle of step 2
    with pytest.raises(Stopped) as caught:
        train(load(run_file), out=half, allow=HERE)
    command = f"`mmalign train --resume {half} --allow tests.run.test_stopping`"
    assert str(caught.value) == f"stopped; {command} goes on after step 2 of 3."
    assert [path.name for path in (half / "checkpoints").iterdir()] == ["step_000002"]
    train(load(half / "run.yaml"), resume=half, allow=HERE)
    one, two = weights(tmp_path / "whole"), weights(half)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert steps(half / "metrics.jsonl") == [1, 2, 3]


def test_a_run_without_a_checkpoint_is_not_in_the_way_of_another(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my run"
    PRESSES[ROWS + 3] = 2
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    with pytest.raises(Stopped, match=r"before the first checkpoint; the same command starts again in '.*/my run'"):
        train(load(run_file), out=out, allow=HERE)
    shown = capsys.readouterr().out
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
    with pytest.raises(CheckpointError, match="no complete checkpoint; start the run without --resume"):
        train(load(out / "run.yaml", ["adapter.model=/nowhere"]), resume=out, allow=HERE)  # before it is looked for
    train(load(run_file), out=out, allow=HERE)
    assert steps(out / "metrics.jsonl") == [1, 2, 3]
    assert steps(out / "abandoned" / "1" / "metrics.jsonl") == [1]
    with pytest.raises(ConfigError, match=r"already holds a run; choose another --out, or continue it with --resume"):
        train(load(run_file), out=out, allow=HERE)


def test_ctrl_c_in_the_last_step_leaves_a_run_to_be_reported(run_file: Path, tmp_path: Path) -> None:
    PRESSES[3] = 1
    with pytest.raises(Stopped, match=r"after the last step; `mmalign train --resume .*run --allow tests.*` measures"):
        train(load(run_file, ["trainer.steps=1"]), out=tmp_path / "run", allow=HERE)
    assert (tmp_path / "run" / "checkpoints" / "step_000001" / "done").exists()
    assert not (tmp_path / "run" / "report.html").exists()
    train(load(tmp_path / "run" / "run.yaml"), resume=tmp_path / "run", allow=HERE)
    assert steps(tmp_path / "run" / "metrics.jsonl") == [1]
    assert all((tmp_path / "run" / name).exists() for name in ("report.html", "README.md"))
    with pytest.raises(ConfigError, match=r"run: already at step 1 of 1; raise trainer.steps"):
        train(load(tmp_path / "run" / "run.yaml"), resume=tmp_path / "run", allow=HERE)
    with pytest.raises(ConfigError, match=r"--out .*elsewhere: a resumed run goes on in its own folder, .*run; leave"):
        train(run_file, out=tmp_path / "elsewhere", resume=tmp_path / "run", allow=HERE)
