"""The table of results is what the committed results say, and a picture is drawn of what was measured on the way."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mmalign.core.config import dump, load
from mmalign.core.errors import ConfigError
from mmalign.run.build import build
from pipelines._finished import differing
from pipelines.results import RESULTS, across_seeds, place, reported, run_name, run_seed, scissors, table
from tests.pipelines.readme import ROOT, missing

CONFIG = ROOT / "configs" / "quickstart" / "image.yaml"


@pytest.fixture
def runs() -> list[dict[str, Any]]:
    """Two seeds of a run that was measured before, once on the way and after."""
    row = {"win_rate": 0.7, "ci": [0.1, 0.3], "n": 8}
    rows = [
        row | {"name": "clip", "role": "trained", "before": 0.4, "after": 0.6, "delta": 0.2},
        row | {"name": "judge", "role": "judge", "before": 0.5, "after": 0.6, "delta": 0.1},
        row | {"name": "truth", "role": "verifier", "before": 0.2, "after": 0.5, "delta": 0.3},
    ]
    first: dict[str, Any] = {
        "seed": 0,
        "rows": rows,
        "seconds": 1.0,
        "curve": [{"step": 5, "clip": 0.5, "truth": 0.25}],
    }
    second = copy.deepcopy(first)
    second["seed"], second["rows"][2]["after"], second["rows"][2]["delta"] = 1, 0.3, 0.1
    return [first, second]


def test_the_readme_shows_the_committed_results() -> None:
    assert not missing(table()), "print the table with `python -m pipelines.results` and put it into docs/results.md"


def test_every_mean_is_that_of_its_seeds() -> None:
    for path in [*RESULTS.glob("*.json"), *(RESULTS / "music_rewards").glob("*.json")]:
        result = json.loads(path.read_text())
        assert result["mean"] == across_seeds(result["seeds"]), path.name


def test_every_result_names_its_command_and_the_commit_of_every_seed() -> None:
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        assert result["command"].startswith("python -m pipelines.results configs/")
        assert result["seeds"] and all(len(run["commit"]) >= 7 for run in result["seeds"])
        assert (ROOT / result["command"].split()[3]).is_file()


def test_means_and_ranges_over_seeds(runs: list[dict[str, Any]]) -> None:
    runs[1]["rows"].reverse()  # the order of rewards is not the same in every run
    truth = across_seeds(runs)[2]
    assert truth["after"] == pytest.approx(0.4) and truth["delta"] == pytest.approx(0.2)
    assert truth["delta_by_seed"] == [0.3, 0.1]


def test_a_finished_run_is_read_with_the_commit_it_ran_at(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    rows = runs[0]["rows"]
    (tmp_path / "summary.json").write_text(json.dumps({"rows": rows, "seconds": 2.5, "device": "cpu"}))
    (tmp_path / "environment.json").write_text(json.dumps({"commit": "0123456789ab+"}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 5, "eval/clip": 0.5}\n')
    finish(tmp_path, CONFIG, ["trainer.seed=3"])
    assert run_seed(CONFIG, 3, [], tmp_path) == {
        "seed": 3,
        "commit": "0123456789ab+",
        "rows": rows,
        "seconds": 2.5,
        "curve": [{"step": 5, "clip": 0.5}],
    }


def finish(folder: Path, config: Path, changes: list[str]) -> None:
    """Leave what says that a run is finished, as written on another machine before an option was known."""
    run = build(load(config, changes)).resolved()
    run.base = "/elsewhere/configs"
    del run.data["audio"]
    (folder / "run.yaml").write_text(dump(run))
    if not (folder / "summary.json").exists():
        (folder / "summary.json").write_text("{}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["trainer.steps=1"], "another trainer.steps than"),
        (["objective.std=none"], "another objective.std than"),
        (["combine={name: minimum}", "rewards.new={name: verifier}"], "another rewards.new, combine than"),
    ],
)
def test_a_finished_run_of_something_else_is_not_read(tmp_path: Path, changes: list[str], told: str) -> None:
    finish(tmp_path, CONFIG, ["trainer.seed=3"])
    with pytest.raises(ConfigError, match=f"holds a run with {told} is asked for; name another folder by --runs, or"):
        run_seed(CONFIG, 3, changes, tmp_path)


def test_a_run_that_today_cannot_be_built_is_not_read(tmp_path: Path) -> None:
    finish(tmp_path, CONFIG, [])
    (tmp_path / "run.yaml").write_text((tmp_path / "run.yaml").read_text().replace("same_noise", "since_removed"))
    with pytest.raises(ConfigError, match=r"cannot be compared .*; name another folder(.|\n)*since_removed: unknown"):
        run_seed(CONFIG, 0, [], tmp_path)


def test_differences_are_told_by_their_keys() -> None:
    there = {"a": {"name": "x", "b": 1, "c": [1, 2]}, "d": {"name": "y"}}
    assert differing(there, {"a": {"name": "x", "b": 2, "c": [1, 2]}, "d": {"name": "y", "e": 0}}) == ["a.b", "d.e"]
    assert differing(there, there) == [] and differing(there, {**there, "a": {"name": "z", "b": 1}}) == ["a"]


def test_only_what_is_committed_is_written_where_it_is_committed(tmp_path: Path) -> None:
    assert place(CONFIG, [], tmp_path) == RESULTS / "image.json"
    assert place(CONFIG, ["trainer.steps=1"], tmp_path).parent == tmp_path
    (mine := tmp_path / "image.yaml").write_text(CONFIG.read_text())
    assert place(mine, [], tmp_path) == tmp_path / "image.json"
    with pytest.raises(ConfigError, match=r"holds the result of configs/scenes/reward_model.yaml; run a"):
        place(CONFIG.parents[1] / "text" / "reward_model.yaml", [], tmp_path)


def test_other_changes_are_other_runs() -> None:
    names = [run_name(Path("configs/a.yaml"), changes) for changes in ([], ["x=1"], ["x=2"], ["x=1", "y=2"])]
    assert names[0] == "a" and len(set(names)) == 4
    assert run_name(Path("a.yaml"), ["y=2", "x=1"]) == names[3]


def test_a_picture_of_what_was_measured_on_the_way(runs: list[dict[str, Any]]) -> None:
    picture = scissors(runs, 10)
    assert picture is not None
    told = [title.text for title in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}title")]
    assert "clip: 0.5 at step 5" in told and "truth: 0.4 at step 10" in told
    for run in runs:
        run["curve"] = []
    assert scissors(runs, 10) is None


def test_a_reward_model_has_judges_alone(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        run["rows"] = run["rows"][1:2]
    assert scissors(runs, 10) is None
    line = reported({"mean": across_seeds(runs), "command": "python"}, "reward_model")
    assert line == "| [reward_model](assets/results/reward_model.json) |  | judge 0.500 → 0.600 |  | `python` |"
