"""`pipelines.own_style`: a folder, a LoRA of its style, GRPO from there, and plain diffusers in a fresh process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmalign.core.errors import ConfigError
from mmalign.miniworld.scenes import COLORS
from mmalign.miniworld.tunes.tune import ATTRIBUTES
from pipelines._own_style import COLOUR, TIMBRE, write_folder
from pipelines._stages import of_stage
from pipelines.own_style import STAGES, TOLERANCE, main, read, require_stages

SMALL = [
    *(f"{stage}.{change}" for stage in STAGES for change in ("trainer.steps=1", "evaluation.count=2")),
    *(
        "sft.trainer.prompts_per_step=2",
        "control.trainer.prompts_per_step=2",
        "grpo.trainer.prompts_per_step=4",
        "grpo.objective.group_size=8",
    ),
    "grpo.trainer.stop_on_idle_steps=0",  # so few pictures may all be equally wrong
]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_from_a_folder_to_plain_diffusers(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = main(kind, SMALL, out)
    assert made == json.loads((out / "summary.json").read_text())
    assert 0 < made["plain_diffusers"]["largest_difference"] < TOLERANCE
    assert set(made["verifier"]) == set(STAGES) and made["verifier"]["grpo"]["n"] == 2
    assert made["verifier"]["grpo"]["before"] == made["verifier"]["sft"]["after"]  # the same prompts, noise and weights
    assert made["verifier"]["control"]["before"] == made["verifier"]["sft"]["after"]
    before = (out / "model" / "model_index.json").stat().st_mtime_ns
    assert main(kind, SMALL, out) == made  # finished stages are left as they are
    assert (out / "model" / "model_index.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("kind", "style", "others"), [("image", COLOUR, COLORS), ("audio", TIMBRE, ATTRIBUTES["timbre"])]
)
def test_the_style_is_in_no_caption_and_in_all_that_is_asked(
    kind: str, style: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    own, asked = write_folder(kind, tmp_path / "folder", 3, count=20, questions=15)
    captions = {file.read_text() for file in (tmp_path / "folder").glob("*.txt")}
    rows = [json.loads(line) for file in (own, asked) for line in file.read_text().splitlines()]
    assert len([file for file in (tmp_path / "folder").iterdir() if file.suffix != ".txt"]) == 20
    assert {row["prompt"] for row in rows[: len(captions)]} == captions
    assert not captions & {row["prompt"] for row in rows[len(captions) :]} and len(rows) == len(captions) + 15
    assert not any(word in row["prompt"].split() for row in rows for word in others)
    assert all(style in row["request"].split() for row in rows)
    assert [row["request"].replace(f"{style} ", "") for row in rows] == [row["prompt"] for row in rows]
    again = write_folder(kind, tmp_path / "again", 3, count=20, questions=15)
    assert [file.read_text() for file in again] == [own.read_text(), asked.read_text()]


def test_changes_name_their_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert of_stage(["sft.trainer.lr=1", "grpo.trainer.lr=2"], "grpo", STAGES) == ["trainer.lr=2"]
    with pytest.raises(ConfigError, match=r"trainer\.lr=1: begins with the stage that it is of"):
        require_stages(["sft.trainer.lr=2", "trainer.lr=1"])
    with pytest.raises(SystemExit):
        read(["my_folder"])
    assert "my_folder: no change of a run file" in capsys.readouterr().err
