"""A run directory of an earlier commit: its run file, its checkpoint and its numbers still mean the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mmalign

KEPT = Path(__file__).parent / "earlier_run"
SAME = ("lr", "ratio/mean", "kl/old", "advantage/size", "grad/norm", "reward/clip", "reward/clip/std")


@pytest.fixture
def earlier_run(tmp_path: Path) -> Path:
    """A copy of the kept run directory whose `base` is this checkout's."""
    folder = tmp_path / "earlier"
    shutil.copytree(KEPT, folder)
    run_file = folder / "run.yaml"
    run_file.write_text(run_file.read_text().replace("base: ./", f"base: {Path(mmalign.__file__).parents[1]}/"))
    return folder


def test_an_earlier_run_resumes_with_the_numbers_that_it_would_have_had(
    earlier_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mmalign.train(earlier_run / "run.yaml", ["trainer.steps=2"], resume=earlier_run)
    first, second, *rest = map(json.loads, (earlier_run / "metrics.jsonl").read_text().splitlines())
    expected = json.loads((KEPT / "step_2.json").read_text())
    assert first == json.loads((KEPT / "metrics.jsonl").read_text())
    assert {key: second[key] for key in SAME} == pytest.approx({key: expected[key] for key in SAME}, rel=1e-4)
    assert set(expected) <= set(second)
    assert all(line["step"] == 2 and not set(line) & set(expected) - {"step"} for line in rest)  # what follows it
    assert len([record for record in caplog.records if "renamed" in record.message]) <= 1


def test_the_model_of_an_earlier_run_loads(earlier_run: Path) -> None:
    trained = mmalign.load_run(earlier_run)
    assert trained.step == 1
