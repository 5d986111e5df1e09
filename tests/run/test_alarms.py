"""Runs that say, or stop at, what their numbers warn of, and keep their best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import mmalign
from mmalign.core.config import load
from mmalign.core.errors import CheckError, CheckpointError, ConfigError
from mmalign.loading.trained import local_weights
from mmalign.run.resuming import resume_point
from mmalign.run.train import train
from tests.run.text_runs import GRPO, RULES

HACKED = ["trainer.evaluate_every=2", "trainer.steps=8", "trainer.keep=1"]


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    """A run on the share of a word, judged by how long answers are: the word alone is the best that it can do."""

    def file() -> Path:
        words = ["a", "b", "c", "d", "e", "f", "red", "cube", "two", "dogs"]
        (tmp_path / "prompts.txt").write_text("".join(f"{one} {two}\n" for one in words[:4] for two in words[4:]))
        path = tmp_path / "run.yaml"
        path.write_text(GRPO.format(model=lm_folder("llama")).replace("brief", "wordy"))
        return path

    return file


def alarms(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "alarms.jsonl").read_text().splitlines()]


def test_a_judge_that_falls_is_said_and_the_best_stays(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(load(write(), [*HACKED, "trainer.keep_best=good"]), out=run, allow=RULES)
    raised = alarms(run)
    assert [(a["kind"], a["about"]) for a in raised].count(("turned", "wordy")) >= 1
    assert (
        "alarm: step" in capsys.readouterr().err
        and "the reward is being exploited" in (run / "report.html").read_text()
    )
    best = resume_point(f"{run}@best")[1]
    assert best == int((run / "evaluation" / "best" / "done").read_text()) > 0
    assert local_weights(f"{run}@best") == run / "checkpoints" / f"step_{best:06d}" / "adapter"
    assert mmalign.load_run(f"{run}@best", allow=RULES).step == best


def test_the_best_checkpoint_outlives_newer_ones(write: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = [*HACKED, "trainer.keep_best=wordy", "trainer.save_every=1", "trainer.alarms=none"]
    train(load(write(), changes), out=run, allow=RULES)
    kept = sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())
    best = int((run / "evaluation" / "best" / "done").read_text()) if (run / "evaluation" / "best").exists() else None
    assert kept == sorted({8} | ({best} if best else set())) and not (run / "alarms.jsonl").exists()
    if best is None:
        with pytest.raises(CheckpointError, match="better than the start"):
            resume_point(f"{run}@best")


def test_a_run_stops_with_a_checkpoint_and_goes_on(write: Callable[..., Path], tmp_path: Path) -> None:
    run, file = tmp_path / "run", load(write(), [*HACKED, "trainer.alarms=stop"])
    with pytest.raises(CheckError, match=r"turned \(wordy\).*the run ends here"):
        train(file, out=run, allow=RULES)
    step = int(alarms(run)[-1]["step"])  # type: ignore[call-overload]
    assert (run / "checkpoints" / f"step_{step:06d}" / "done").exists() and step < 8
    file.trainer.alarms = "say"
    train(file, resume=run, allow=RULES)
    assert (run / "summary.json").exists()


def test_what_cannot_be_kept_is_refused_before_anything_is_loaded(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        train(load(write(), ["trainer.keep_best=truth"]), out=tmp_path / "run", allow=RULES)
    assert "'truth' is no reward or judge of this run; choose from good, wordy" in str(refused.value)
    assert "set trainer.evaluate_every" in str(refused.value)


def test_after_the_last_step_an_alarm_is_said_and_the_report_is_written(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    changes = ["trainer.steps=8", "trainer.evaluate_every=0", "trainer.alarms=stop"]  # measured at the end alone
    train(load(write(), changes), out=run, allow=RULES)
    assert int(alarms(run)[-1]["step"]) == 8 and (run / "report.html").exists()  # type: ignore[call-overload]
