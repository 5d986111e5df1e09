"""Where a run goes on from, what becomes of what came after, and what is kept of where it came from."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmalign.core.config import load
from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.run.directory import RunDirectory
from mmalign.run.evaluate import evaluate
from mmalign.run.resuming import checkpoint_of, resume_point
from mmalign.run.train import train

RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{short: {{name: length, low: 1, high: 9, unit: characters}}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 3, prompts_per_step: 2, lr: 1.0e-2, save_every: 1, keep: 3}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, lm_folder: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("resuming")
    (folder / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    (folder / "run.yaml").write_text(RUN.format(model=lm_folder("llama")))
    train(load(folder / "run.yaml"), out=folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_000003" / "state" / "weights.safetensors")


def test_a_step_behind_an_at_sign(tmp_path: Path) -> None:
    assert resume_point("runs/mine@200") == (Path("runs/mine"), 200)
    assert resume_point("runs/me@home") == (Path("runs/me@home"), None)
    (tmp_path / "mine@7").mkdir()
    assert resume_point(tmp_path / "mine@7") == (tmp_path / "mine@7", None)


def test_from_an_earlier_step_it_comes_to_the_same_and_nothing_is_lost(run: Path, finished: Path) -> None:
    directory = RunDirectory(run)
    with pytest.raises(CheckpointError, match=r"step_000009: no such checkpoint; there is 1, 2, 3\."):
        checkpoint_of(directory, 9)
    first = directory.environment()
    train(load(run / "run.yaml"), resume=f"{run}@1")
    assert all(torch.equal(value, weights(finished)[name]) for name, value in weights(run).items())
    aside = run / "abandoned" / "1"
    assert sorted(path.name for path in (aside / "checkpoints").iterdir()) == ["step_000002", "step_000003"]
    assert (aside / "summary.json").exists() and (aside / "report.html").exists()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == [1, 2, 3]
    now = directory.environment()
    assert (now["command"], now["started"]) == (first["command"], first["started"])
    assert [entry["step"] for entry in now["resumed"]] == [1] and now["finished"] == 3


def test_provenance_is_of_the_first_start_with_a_history(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, file = RunDirectory(run), load(run / "run.yaml")
    kept = directory.environment()
    monkeypatch.setattr(sys, "argv", ["mmalign", "train", "--resume", "x"])
    directory.start(file, fresh=False, step=3)
    directory.start(file, fresh=False, step=3)
    found = directory.environment()
    assert found["command"] == kept["command"] and found["started"] == kept["started"]
    assert [entry["command"] for entry in found["resumed"]] == ["mmalign train --resume x"] * 2


def test_durations_add_up(run: Path) -> None:
    seconds = json.loads((run / "summary.json").read_text())["seconds"]
    state = run / "checkpoints" / "step_000003" / "state" / "state.json"
    plain = json.loads(state.read_text())
    assert 0 < plain["seconds"] <= seconds
    (run / "report.html").unlink()
    text = json.dumps(plain | {"seconds": 1000.0})
    state.write_text(text + " " * (state.stat().st_size - len(text)) if len(text) <= state.stat().st_size else text)
    (state.parents[1] / "files.json").unlink()
    train(load(run / "run.yaml"), resume=run)
    assert json.loads((run / "summary.json").read_text())["seconds"] > 1000


@pytest.mark.parametrize("lost", ["report.html", "README.md", "summary.json"])
def test_a_run_without_its_report_gets_it(run: Path, lost: str) -> None:
    with pytest.raises(ConfigError, match=r"already at step 3 of 3; raise trainer\.steps"):
        train(load(run / "run.yaml"), resume=run)
    (run / lost).unlink()
    train(load(run / "run.yaml"), resume=run)
    assert (run / lost).stat().st_size > 0


def test_evaluate_gives_the_card_too(run: Path) -> None:
    for name in ("report.html", "README.md", "summary.json"):
        (run / name).unlink()
    evaluate(run)
    assert all((run / name).stat().st_size for name in ("report.html", "README.md", "summary.json"))


def test_a_start_whose_measure_is_damaged_is_measured_again(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = run / "evaluation" / "before" / "rows.jsonl"
    before = rows.read_text()
    rows.write_text(before[: len(before) // 2])
    train(load(run / "run.yaml", ["trainer.steps=4"]), resume=run)
    assert rows.read_text() == before  # of the weights that it started from, not of those it has now
    assert "so the start is measured again" in caplog.text


def test_an_evaluation_that_was_being_replaced_is_there_again(run: Path) -> None:
    before = (run / "evaluation" / "before" / "rows.jsonl").read_text()
    (run / "evaluation").rename(run / ".evaluation.0123abcd.old")
    (run / ".evaluation.89abcdef.part").mkdir()
    train(load(run / "run.yaml", ["trainer.steps=4"]), resume=run)
    assert (run / "evaluation" / "before" / "rows.jsonl").read_text() == before
    assert not list(run.rglob(".*"))
