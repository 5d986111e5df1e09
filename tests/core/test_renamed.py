"""Old keys keep their meaning, with one warning; and every new one exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign.core import config
from mmalign.core.errors import ConfigError
from mmalign.core.renamed import RENAMED, UNTIL

PARTS: dict[str, Any] = {
    "adapter": {"name": "sd3", "model": "x"},
    "policy": {"name": "flow"},
    "objective": {"name": "grpo"},
    "data": {"name": "prompts", "path": "x.txt"},
}


def test_old_keys_mean_what_they_meant_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    old = config.parse({**PARTS, "trainer": {"batch": 3, "rows": 2, "spans": 1, "steps": 5}})
    new = config.parse(
        {**PARTS, "trainer": {"prompts_per_step": 3, "micro_batch_size": 2, "steps_per_pass": 1, "steps": 5}}
    )
    assert old == new
    (record,) = caplog.records
    assert record.getMessage() == (
        "renamed options: trainer.batch is now trainer.prompts_per_step; trainer.rows is now trainer.micro_batch_size; "
        "trainer.spans is now trainer.steps_per_pass. The old names work until mmalign 0.3."
    )


@pytest.mark.parametrize("in_file", ["batch", "prompts_per_step"])
@pytest.mark.parametrize("in_change", ["batch", "prompts_per_step"])
def test_a_change_wins_whichever_name_is_used(
    tmp_path: Path, in_file: str, in_change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**PARTS, "trainer": {in_file: 3}}))
    changed = config.load(path, [f"trainer.{in_change}=6"])
    assert changed.trainer.prompts_per_step == 6
    assert len(caplog.records) == ("batch" in (in_file, in_change))


def test_a_key_by_both_names_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**PARTS, "trainer": {"batch": 3, "prompts_per_step": 3}}))
    with pytest.raises(ConfigError, match=r"trainer\.batch: is the old name of trainer\.prompts_per_step"):
        config.load(path)


def test_a_value_that_is_wrong_is_told_under_the_new_name() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.prompts_per_step"):
        config.parse({**PARTS, "trainer": {"batch": 0}})


def test_every_new_name_is_an_option() -> None:
    resolved = config.parse(PARTS).to_dict()
    for old, new in RENAMED.items():
        section, _, key = new.rpartition(".")
        assert key in resolved[section] and old.rpartition(".")[2] not in resolved[section]


RESULTS = {path.stem: json.loads(path.read_text()) for path in sorted(Path("assets/results").rglob("*.json"))}


@pytest.mark.parametrize("name", [name for name, result in RESULTS.items() if "changes" in result])
def test_the_changes_of_committed_results_still_apply(name: str) -> None:
    read = config.load("configs/quickstart/audio.yaml", RESULTS[name]["changes"])
    assert config.parse(read.to_dict()).to_dict() == read.to_dict()


def test_the_page_on_stability_holds_the_table() -> None:
    page = Path("STABILITY.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| (\S+) \|$", page, flags=re.MULTILINE)
    assert {old: new for old, new, _ in rows} == RENAMED and {until for *_, until in rows} == {UNTIL}
