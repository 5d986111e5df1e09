"""Questions over passages: what makes an answer right can be read off the passages again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmalign.miniworld.language import parse
from mmalign.miniworld.retrieval import SUBSETS, UNKNOWN, retrieval
from mmalign.rewards import load_reward
from mmalign.run.judge import judge_reward, read_comparisons

SHOWS = re.compile(r"(?:Correction: p|P)icture (\d+) shows ([^,.]+)")


def derived(row: dict[str, Any]) -> tuple[str, list[int]]:
    """The answer and its sources, read off the prompt by another way than it was written."""
    listed, question = row["prompt"].split("\n\n")
    passages = dict(re.findall(r"\[(\d+)\] (.+)", listed))
    asked, sources = re.search(r"picture (\d+) show", question), []
    if asked is None:
        number, room = next((n, text) for n, text in passages.items() if text.startswith("Room A"))
        asked, sources = re.search(r"picture (\d+)", room), [int(number)]
    assert asked is not None
    about = {n: SHOWS.match(text) for n, text in passages.items()}
    found = [(n, m[2], m[0].startswith("Corr")) for n, m in about.items() if m and m[1] == asked[1]]
    if not found:
        return UNKNOWN, []
    number, text, _ = max(found, key=lambda one: one[2])
    return text, sorted([*sources, int(number)])


def test_answers_and_sources_follow_from_the_passages() -> None:
    rows = list(retrieval(200, seed=1))
    assert [row["subset"] for row in rows[:4]] == list(SUBSETS) and list(retrieval(200, seed=1)) == rows
    for row in rows:
        text, sources = derived(row)
        assert (row["answer"], row["supporting"], row["answerable"]) == (text, sources, text != UNKNOWN)
        assert row["chosen"] == f"<answer>{text}</answer>" + "".join(f" [{n}]" for n in sources) != row["rejected"]
        assert text == UNKNOWN or parse(text)


@pytest.mark.parametrize("name", ["exact_match", "citations", "abstains"])
def test_each_rule_is_right_where_it_looks_and_blind_elsewhere(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in retrieval(80, split="heldout")))
    found = judge_reward(name, load_reward(name), read_comparisons(str(file))).means()
    sees = {
        "exact_match": {"multi_hop": 1.0, "citation": 0.5, "abstain": 1.0, "conflict": 1.0},
        "citations": {"multi_hop": 0.5, "citation": 1.0, "abstain": 1.0, "conflict": 1.0},
        "abstains": {"multi_hop": 0.5, "citation": 0.5, "abstain": 1.0, "conflict": 0.5},
    }[name]
    assert {subset: found[f"accuracy/{subset}"] for subset in SUBSETS} == sees
    assert found["macro"] == pytest.approx(sum(sees.values()) / 4)
