"""What a run leaves in each tracker, read back: its name, its run file, curves, samples; one run when it is resumed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign.core.config import load
from mmalign.run.train import train

RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{short: {{name: length, low: 1, high: 9, unit: characters}}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 3, prompts_per_step: 2, lr: 1.0e-2, save_every: 1, keep: 3, preview_every: 1, tracker: {tracker}}}
"""


@pytest.fixture
def run(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Trains three steps, then the last two of them again from the first one's checkpoint; gives the run's folder."""

    def trained(tracker: str, name: str = "brief") -> Path:
        (tmp_path / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
        file = tmp_path / "run.yaml"
        file.write_text(RUN.format(model=lm_folder("llama"), tracker=tracker))
        out = tmp_path / name
        train(load(file), out=out)
        train(load(out / "run.yaml"), resume=f"{out}@1")
        return out

    return trained


def lines(run: Path) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "lr" in line]


def test_tensorboard_has_each_step_once_and_the_run_file(run: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run("tensorboard") / "brief"
    events = EventAccumulator(str(folder))
    events.Reload()
    points = events.Scalars("grad/norm")
    assert [point.step for point in points] == [1, 2, 3]  # those that were left behind are hidden
    assert [point.value for point in points] == pytest.approx([line["grad/norm"] for line in lines(folder.parent)])
    assert [point.step for point in events.Scalars("eval/short")] == [3]
    assert {point.step for point in events.Tensors("samples/prompts/text_summary")} >= {1, 2, 3}
    said = "".join(file.read_text() for file in sorted(folder.rglob("hparams.yml")))
    assert "objective.group_size: 4" in said and "adapter.lora.rank: 4" in said and "trainer.lr: 0.01" in said


@pytest.mark.every_extra  # where every extra is installed
def test_trackio_goes_on_in_one_run(run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read where it is imported first
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    folder = run("trackio", f"brief-{uuid.uuid4().hex}")
    names = SQLiteStorage.get_runs("mmalign")
    assert names.count(folder.name) == 1, (names, trackio.__version__)
    logged = SQLiteStorage.get_logs("mmalign", folder.name)
    curve = [(entry["step"], entry["grad/norm"]) for entry in logged if "grad/norm" in entry]
    assert {step for step, _ in curve} == {1, 2, 3}
    assert [value for _, value in curve][-2:] == pytest.approx([line["grad/norm"] for line in lines(folder)][-2:])
    assert any("eval/short" in entry for entry in logged)
    config = SQLiteStorage.get_run_config("mmalign", folder.name)
    assert config is not None and config["objective"]["group_size"] == 4


@pytest.mark.every_extra
def test_wandb_goes_on_in_one_run_offline(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    folder = run("wandb")
    own = (folder / "wandb_id").read_text().strip()
    kept = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(kept) == 2 and all(part.name.endswith(own) for part in kept)  # two parts of one run
    said = b"".join(file.read_bytes() for part in kept for file in part.glob("*.wandb"))
    assert b"grad/norm" in said and b"eval/short" in said and b"group_size" in said
    assert any(file.suffix == ".json" for part in kept for file in part.rglob("media/table/*"))
    shutil.rmtree(tmp_path / "wandb")
    assert "WANDB_API_KEY" not in os.environ
