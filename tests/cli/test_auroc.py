"""`mmalign auroc`: a reward between two files, against the count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LENGTH = ("--reward", "length", "--set", "low=9", "--set", "rise=9")


def rows(folder: Path, name: str, *outputs: str) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"prompt": "a", "output": output}) + "\n" for output in outputs))
    return path


def test_pairs_are_counted(call: Any, tmp_path: Path) -> None:
    """Longer is better up to nine words: of six pairs four are won and one is a tie."""
    ours = rows(tmp_path, "ours.jsonl", "a b c", "a", "a b c d")
    theirs = rows(tmp_path, "theirs.jsonl", "a b", "a")
    code, out, err = call("auroc", ours, theirs, *LENGTH, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["auroc"] == pytest.approx(4.5 / 6) and told["n"] == 5 and told["low"] < 0.75 < told["high"]
    back = json.loads(call("auroc", theirs, ours, *LENGTH, "--json")[1])
    assert back["auroc"] == pytest.approx(1 - told["auroc"])
    assert "AUROC 0.500" in call("auroc", ours, ours, *LENGTH)[1]


def test_rows_without_a_score_are_left_out_and_counted(call: Any, tmp_path: Path) -> None:
    ours = rows(tmp_path, "ours.jsonl", "a", "b")
    asked = [{"prompt": "a", "output": "a", "meta": {"answer": "a"}}, {"prompt": "a", "output": "b"}]
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text("".join(json.dumps(row) + "\n" for row in asked))
    code, _, err = call("auroc", theirs, ours, "--reward", "exact_match")
    assert code == 2 and "answer" in err
    code, out, err = call("auroc", theirs, theirs, "--reward", "exact_match")
    assert code == 0 and "1 of 2 rows have no score and are left out" in err and "of 2 rows" in out
    code, _, err = call("auroc", ours, ours, "--reward", "vendi", "--set", "encoder={name: text}")
    assert code == 2 and "vendi" in err
