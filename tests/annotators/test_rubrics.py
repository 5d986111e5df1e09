"""Criteria of pairs: where they come from, and which are kept by a judge who reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.errors import ConfigError
from mmalign.rewards import rule

PAIR: dict[str, Any] = {"prompt": "p", "chosen": "a red circle and a star", "rejected": "a blue circle and a star"}


def made(rows: list[dict[str, Any]], exact: bool = True, **options: Any) -> list[Any]:
    """Annotated rows; `exact`: by a judge who takes a criterion as met where its text stands in the output."""
    annotator = annotators.build({"name": "rubrics", **options}, "rubrics")
    if exact:
        annotator.reward = Literally()
    results = annotator([Row.of(row) for row in rows])
    return [str(result) if isinstance(result, Skipped) else result[0] for result in results]


@rule(modalities={"text"}, range=(0.0, 1.0))
def literally(output: str, criteria: list[dict[str, Any]]) -> float:
    """The share of criteria whose text stands in the output."""
    return sum((c["text"] in output) == c.get("positive", True) for c in criteria) / len(criteria)


Literally: Any = literally


def test_a_rubric_stays_where_it_reproduces_the_label() -> None:
    rows: list[dict[str, Any]] = [
        PAIR | {"criteria": [{"text": "red"}, {"text": "blue", "positive": False}]},
        PAIR | {"criteria": [{"text": "blue"}]},
        PAIR | {"criteria": [{"text": "star"}]},
        PAIR | {"criteria": [{"text": "red"}, {"text": "green"}, {"text": "blue"}]},
        PAIR,
    ]
    kept = made(rows, source="column")
    assert kept[0]["criteria_gap"] == 1 and kept[0]["criteria"] == rows[0]["criteria"]
    assert kept[1] == kept[2] == kept[3] == "judging by its criteria does not prefer what was preferred"
    assert kept[4] == "no criteria came"
    single = made(rows, source="column", keep="criterion")
    assert single[3]["criteria"] == [{"text": "red"}] and isinstance(single[1], str)
    assert isinstance(made(rows[3:4], source="column", keep="criterion", margin=1.0)[0], str)
    every = made(rows, exact=False, source="column")
    assert every[1]["criteria"] == [{"text": "blue"}] and "criteria_gap" not in every[1]


def test_what_captions_of_scenes_differ_in() -> None:
    (row, strange) = made([PAIR, PAIR | {"rejected": "no caption"}], exact=False, source="scenes")
    assert row["criteria"] == [
        {"text": "Is there exactly one red circle?", "kind": "hard", "positive": True},
        {"text": "Is there exactly one blue circle?", "kind": "hard", "positive": False},
    ]
    assert strange == "a side is no caption of the scenes"


def test_a_model_writes_them_and_equal_rows_have_equal_ones(lm_folder: Callable[..., Path]) -> None:
    generator = {
        "adapter": {"name": "causal_lm", "model": str(lm_folder("llama"))},
        "policy": {"name": "tokens", "max_new_tokens": 6},
    }
    rows = [PAIR, PAIR | {"chosen": "two stars"}]
    both = made(rows, exact=False, generator=generator, instruction="{prompt} {chosen} {rejected}")
    alone = made(rows[:1], exact=False, generator=generator, instruction="{prompt} {chosen} {rejected}")
    assert both[0] == alone[0] and all(c["kind"] == "soft" for c in both[0]["criteria"])


def test_lines_say_which_are_hard() -> None:
    from mmalign.annotators.rubrics import _LINE

    read = [_LINE.match(line) for line in ("- Hard: three cats", "2) soft rule : warm light ", "brief")]
    assert [(m[1], m[2]) for m in read if m] == [("Hard", "three cats"), ("soft", "warm light"), (None, "brief")]


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match="name the model that writes criteria"):
        annotators.build({"name": "rubrics"}, "rubrics")
    with pytest.raises(ConfigError, match="is asked only with source: generator"):
        annotators.build({"name": "rubrics", "source": "scenes", "generator": "x"}, "rubrics")
    with pytest.raises(ConfigError, match="instruction: must name"):
        annotators.build({"name": "rubrics", "generator": "x", "instruction": "{prompt}"}, "rubrics")
