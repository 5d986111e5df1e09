"""Comparisons of rewrites: what is called right says what was asked, what is called wrong does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmalign.miniworld.colloquial import same_meaning
from mmalign.miniworld.comparisons import comparisons
from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.grammar import parse

PROMPTS = Path(__file__).parents[2] / "assets" / "prompts"


def test_wrong_captions_say_something_else_and_training_shows_nothing_held_out() -> None:
    for split, wrong in (("train", 1), ("heldout", 3)):
        rows = list(comparisons(20, wrong, split, seed=3))
        assert len({row["prompt"] for row in rows}) == 20 and rows == list(comparisons(20, wrong, split, seed=3))
        for row in rows:
            false = [row["rejected"]] if wrong == 1 else row["rejected"]
            true = parse(row["chosen"])
            assert len(set(false)) == wrong and not any(same_meaning(true, parse(text)) for text in false)
            said = [true, *map(parse, false)] if split == "train" else [true]
            assert all(bool(unseen_compositions(request)) == (split == "heldout") for request in said)


def test_the_committed_rows_are_what_the_command_writes() -> None:
    def first(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (PROMPTS / name).read_text().splitlines()[:5]]

    assert first("comparisons_train.jsonl") == list(comparisons(5))
    assert first("comparisons_heldout.jsonl") == list(comparisons(5, 3, "heldout", seed=1))
