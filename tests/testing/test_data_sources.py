"""The check of data sources finds each planted fault, and passes what is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import Preference, Prompt
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.data.sources.scenes import Scenes
from mmalign.testing import check_data_source


@dataclass
class Numbered:
    """Prompts by number, with one planted `fault`."""

    fault: str = ""
    calls: int = 0

    def training_items(self) -> list[Any]:
        self.calls += 1
        if self.fault == "random":
            torch.rand(1)
        if self.fault == "empty":
            return []
        first: Any = Preference(Prompt("0"), "a", "b") if self.fault == "mixed" else Prompt("0")
        return [first, Prompt(f"again {self.calls}" if self.fault == "other" else "1")]

    def held_out_items(self) -> list[Any]:
        return [Prompt("1" if self.fault == "leak" else "2")]


def test_what_is_right_passes(tmp_path: Path) -> None:
    check_data_source(Numbered())
    check_data_source(Scenes(count=3, held_out=2))
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\nfour\n")
    check_data_source(Prompts(str(tmp_path / "p.txt"), held_out=0.5))
    (tmp_path / "q.jsonl").write_text(
        "".join(f'{{"prompt": "{i}", "chosen": "a", "rejected": "b"}}\n' for i in range(4))
    )
    check_data_source(Preferences(str(tmp_path / "q.jsonl"), held_out=0.5))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("empty", "there is no row to train on"),
        ("mixed", "rows are Preference and Prompt; all Prompt, all Preference or all Example"),
        ("other", r"training_items\(\) has other prompts when it is called again"),
        ("leak", r"1 of 1 held-out prompts are trained on: \['1'\]"),
        ("random", "draws from the global random numbers"),
    ],
)
def test_a_planted_fault_is_found(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_data_source(Numbered(fault))


def test_what_is_no_source_is_told_what_it_lacks() -> None:
    with pytest.raises(AssertionError, match="object: lacks held_out_items, training_items of DataSource"):
        check_data_source(object())
