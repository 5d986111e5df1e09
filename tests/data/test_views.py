"""Wordings travel together: whole sets in every batch and on every process, exact resumption, faults by their row."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mmalign.core.errors import ConfigError, DataError
from mmalign.data import data_sources
from mmalign.data.batches import Batches
from mmalign.data.view_rows import ViewRows
from mmalign.testing import check_data_source


def source(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"held_out": options.pop("held_out")} if "held_out" in options else {}
    spec = {"name": "views", "of": {"name": "prompts", "path": str(path), **own}, **options}
    return data_sources.build(spec, "data", relative_to=tmp_path)


def worded(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"q{i}", "paraphrases": [f"q{i}a", f"q{i}b"], "answer": i} for i in range(count)]


def test_rows_are_followed_by_their_wordings(tmp_path: Path) -> None:
    made = source(tmp_path, worded(3), count=2)
    rows = made.training_items()
    assert [row.text for row in rows] == ["q0", "q0a", "q0b", "q1", "q1a", "q1b", "q2", "q2a", "q2b"]
    assert [row.meta["view_of"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2] and rows[4].meta["answer"] == 1
    assert len(made.held_out_items()) == 0 and rows[-1].text == "q2b" and [r.text for r in rows[1:3]] == ["q0a", "q0b"]
    half = source(tmp_path, worded(8), held_out=0.5)
    check_data_source(half)
    aside = half.held_out_items()
    assert len(aside) == 4 and [row.meta["view_of"] for row in aside] == [0, 1, 2, 3]
    assert {row.text for row in aside}.isdisjoint(row.text for row in half.training_items())


def test_every_batch_holds_whole_sets_on_every_process(tmp_path: Path) -> None:
    rows = source(tmp_path, worded(7)).training_items()
    alone = [[row.text for row in batch] for batch in islice(Batches(rows, 4, seed=1), 14)]
    for batch in alone:
        assert [text[:2] for text in batch[::2]] == [text[:2] for text in batch[1::2]] and batch[1].endswith("a")
    first_pass = [text for batch in alone[:7] for text in batch][:14]
    assert len(set(first_pass)) == 14, "a pass is whole"
    assert first_pass != [text for batch in alone[7:] for text in batch][:14], "each pass has its own order"
    ranks = [Batches(rows, 4, seed=1, rank=rank, world=2) for rank in (0, 1)]
    both = [[row.text for rank in ranks for row in next(rank)] for _ in range(14)]
    assert both == alone
    resumed = Batches(rows, 4, seed=1)
    resumed.load_state_dict({"position": 20, "seed": 1, "items": 14})
    assert [[row.text for row in batch] for batch in islice(resumed, 9)] == alone[5:]
    with pytest.raises(ConfigError, match=r"trainer\.prompts_per_step: 6 on 2 processes is 3 each, and 2 rows"):
        Batches(rows, 6, seed=1, world=2)


def test_what_is_too_long_takes_its_set_with_it(tmp_path: Path) -> None:
    rows = source(tmp_path, worded(4)).training_items()
    assert isinstance(rows, ViewRows)
    cut = rows[6]
    kept = rows.keeping([0, 1, 3, 4, 5, 6, 7], {6: type(cut)("short", meta=cut.meta)})
    assert [row.text for row in kept] == ["q0", "q0a", "q2", "q2a", "short", "q3a"]
    assert [row.text for row in kept.keeping([2, 3, 4, 5])] == ["q2", "q2a", "short", "q3a"]


def test_every_fault_names_its_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "paraphrases": ["b"]}, {"prompt": "c"}]
    rows.append({"prompt": "d", "paraphrases": [" "]})
    with pytest.raises(DataError) as caught:
        source(tmp_path, rows).training_items()
    text = str(caught.value)
    assert "rows.jsonl" in text and "holds 0 of 1 other wordings" in text and "no text" in text
    single = source(tmp_path, [{"prompt": "a", "again": "b"}, {"prompt": "c", "again": '["d", "e"]'}], column="again")
    assert [row.text for row in single.training_items()] == ["a", "b", "c", "d"]
    with pytest.raises(DataError, match="are preferences, which have no other wordings"):
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
        spec = {"name": "views", "of": {"name": "preferences", "path": str(pairs)}}
        data_sources.build(spec, "data", relative_to=tmp_path).training_items()
