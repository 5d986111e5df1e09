"""Every target of the table is a run file that builds, and the page of results shows what is committed."""

import json

import pytest

from mmalign.core.config import load
from mmalign.core.renamed import with_new_names
from mmalign.run.build import build
from pipelines.music_rewards import CONFIG, FOLDER, TARGETS, table
from pipelines.results import RESULTS
from pipelines.set_selection import markdown
from tests.pipelines.readme import missing


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_a_run_file(name: str) -> None:
    parts = build(load(CONFIG, TARGETS[name]))
    assert "target" in parts.file.rewards and parts.judges["verifier"]


def test_the_readme_shows_the_committed_targets() -> None:
    assert not missing(table()), (
        "print the table with `python -m pipelines.music_rewards --table` and put it into docs/results.md"
    )


def test_every_target_names_its_command_its_changes_and_its_commits() -> None:
    for path in FOLDER.glob("*.json"):
        result = json.loads(path.read_text())
        assert result["command"].startswith(f"python -m pipelines.music_rewards {path.stem} --seeds ")
        asked = [change.replace(", least_rows: 6", "") for change in TARGETS[path.stem]]  # younger than the results
        assert with_new_names({}, result["changes"])[1] == asked
        assert all(len(run["commit"]) >= 7 for run in result["seeds"])


def test_the_readme_shows_what_sets_are_chosen_by() -> None:
    result = json.loads((RESULTS / "selection" / "set_selection.json").read_text())
    assert len(result["commit"]) >= 7 and len(result["seeds"]) == 3
    assert not missing(markdown(result["mean"])), "print the table with `python -m pipelines.set_selection`"
