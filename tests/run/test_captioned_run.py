"""A folder of captioned pictures trains a generator by imitation; other objectives refuse it before loading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mmalign.core.config import draft
from mmalign.core.errors import MmalignError
from mmalign.run.build import examine
from mmalign.run.train import train
from tests.data.archives import folder, jsonl

CAPTIONS = {f"{i}": f"a picture of {i} things" for i in range(8)}


def imitating(path: Path, **changes: object) -> Path:
    """The run file with captioned pictures, by `sft` unless another objective is named."""
    run = yaml.safe_load(path.read_text())
    run |= {"objective": {"name": "sft"}, "rewards": {}, "data": {"name": "captioned", "path": "photos"}} | changes
    run["trainer"] |= {"steps": 2, "save_every": 1}
    path.write_text(yaml.safe_dump(run))
    return path


@pytest.mark.slow
def test_pictures_are_imitated_and_a_stopped_run_goes_on(
    run_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "photos", CAPTIONS)
    parts = {
        "own": {"name": "captioned", "path": "photos", "held_out": 0.25, "share": 0.5},
        "more": {"name": "captioned", "path": "photos", "share": 0.5},
    }
    path = imitating(run_file(), data={"name": "mixture", "parts": parts})
    train(path, out=tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    fits = [row["fit/target"] for row in rows if "fit/target" in row]
    assert len(fits) == 2
    monkeypatch.chdir("/")
    train(tmp_path / "out" / "run.yaml", ["trainer.steps=3"], resume=tmp_path / "out")
    again = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len([row for row in again if "fit/target" in row]) == 3


@pytest.mark.parametrize("objective", ["grpo", "dpo"])
def test_other_objectives_refuse_examples_before_anything_is_loaded(
    run_file: Callable[..., Path], tmp_path: Path, objective: str
) -> None:
    folder(tmp_path / "photos", CAPTIONS)
    path = imitating(run_file(), objective={"name": objective}, rewards={"crisp": {"name": "sharpness"}})
    with pytest.raises(MmalignError, match=rf"data: holds examples, but objective '{objective}' reads pr"):
        examine(draft(path))


def test_texts_are_no_pictures(run_file: Callable[..., Path], tmp_path: Path) -> None:
    jsonl(tmp_path / "t.jsonl", [{"text": "a", "answer": "b"}])
    path = imitating(run_file(), data={"name": "captioned", "path": "t.jsonl", "output": "answer"})
    with pytest.raises(MmalignError, match="data: the outputs to imitate are text, but the policy is of image"):
        examine(draft(path))


def test_broken_files_are_told_before_anything_is_loaded(run_file: Callable[..., Path], tmp_path: Path) -> None:
    folder(tmp_path / "photos", CAPTIONS)
    for name in ("1", "4", "6"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(b"junk")
    path = imitating(run_file())
    with pytest.raises(MmalignError) as caught:
        examine(draft(path))
    assert [line.count("does not recognise a picture") for line in str(caught.value).split("\n")] == [1, 1, 1]
    parts, _ = examine(draft(imitating(run_file(), data={"name": "captioned", "path": "photos", "skip_bad": True})))
    assert len(parts.source.training_items()) == 5
