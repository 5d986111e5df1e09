"""Sources in one run: exact shares, whole passes, exact resumption, sides apart, and kinds that do not go together."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.data import data_sources
from mmalign.data.batches import Batches
from mmalign.data.mixed_rows import BLOCK, MixedRows
from mmalign.data.row_kinds import kind_of_rows
from mmalign.run.references import anchored
from mmalign.testing import check_data_source
from tests.data.archives import folder, jsonl

CONFIGS = Path(__file__).parents[2] / "configs"


def built(parts: dict[str, Any], where: Path | None = None, **options: Any) -> Any:
    return data_sources.build({"name": "mixture", "parts": parts, **options}, "data", relative_to=where)


def texts(path: Path, count: int, first: str = "p") -> dict[str, Any]:
    path.write_text("\n".join(f"{first}{i}" for i in range(count)))
    return {"name": "prompts", "path": str(path)}


def two(tmp_path: Path, shares: tuple[float, float] = (0.7, 0.3), sizes: tuple[int, int] = (50, 7)) -> dict[str, Any]:
    return {
        name: {**texts(tmp_path / f"{name}.txt", size, name), "share": share}
        for name, size, share in zip("ab", sizes, shares, strict=True)
    }


def test_shares_are_exact_and_every_pass_of_a_part_is_whole(tmp_path: Path) -> None:
    rows = built(two(tmp_path)).training_items()
    assert len(rows) == 57 and kind_of_rows(rows) == "prompts"
    drawn = [p.text for batch in islice(Batches(rows, 8, seed=3), BLOCK // 8) for p in batch]
    assert Counter(text[0] for text in drawn) == {"a": 7000, "b": 3000}
    for name, size in (("a", 50), ("b", 7)):
        own = [text for text in drawn if text[0] == name]
        passes = [own[start : start + size] for start in range(0, len(own) - size, size)]
        assert all(len(set(each)) == size for each in passes) and passes[0] != passes[1]
    per_step = [sum(p.text[0] == "a" for p in batch) for batch in islice(Batches(rows, 8, seed=4), 400)]
    assert len(set(per_step)) > 3 and abs(sum(per_step) / len(per_step) - 5.6) < 0.25


def test_resumed_on_another_number_of_processes_it_draws_the_same(tmp_path: Path) -> None:
    parts = two(tmp_path)
    rows = built(parts).training_items()
    alone = Batches(rows, 4, seed=1)
    list(islice(alone, 2600))  # beyond the first block
    state = json.loads(json.dumps(alone.state_dict()))
    expected = [p.text for p in chain(*islice(alone, 5))]
    pair = [Batches(built(parts).training_items(), 4, 1, rank, 2) for rank in range(2)]
    for each in pair:
        each.load_state_dict(state)
    assert [p.text for _ in range(5) for each in pair for p in next(each)] == expected


def test_without_shares_all_rows_are_shuffled_together(tmp_path: Path) -> None:
    parts = two(tmp_path)
    for spec in parts.values():
        del spec["share"]
    rows = built(parts).training_items()
    drawn = [p.text for batch in islice(Batches(rows, 19, seed=0), 3) for p in batch]
    assert len(set(drawn)) == 57


def test_a_part_of_the_rows_has_the_shares_still(tmp_path: Path) -> None:
    rows = built(two(tmp_path)).training_items()
    few = rows[::2]
    assert isinstance(few, MixedRows) and [p.text for p in few] == [p.text for i, p in enumerate(rows) if i % 2 == 0]
    shorter = rows.keeping([0, 51, 56], {51: "other"})
    assert [getattr(row, "text", row) for row in shorter] == ["a0", "other", "b6"]
    drawn = Counter(getattr(p, "text", p)[0] for batch in islice(Batches(shorter, 8, 0), BLOCK // 8) for p in batch)
    assert drawn == {"a": 7000, "b": 1500, "o": 1500}


def test_what_one_part_holds_out_no_other_trains_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = texts(tmp_path / "p.txt", 20)
    parts = {"whole": path, "split": {**path, "held_out": 0.25}}
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        source = built(parts)
        aside = {p.text for p in source.held_out_items()}
    assert len(aside) == 5 and not aside & {p.text for p in source.training_items()}
    assert len(source.training_items()) == 30
    assert "data.parts.whole: 5 of its 20 rows are held out by another part and are not trained on" in caplog.text
    check_data_source(source)
    assert len(built({"a": path}).held_out_items()) == 0


def test_pictures_with_captions_are_mixed_and_held_apart(tmp_path: Path) -> None:
    captions = {f"{i}": f"c{i}" for i in range(8)}
    parts = {
        "one": {"name": "captioned", "path": folder(tmp_path / "one", captions), "held_out": 0.5},
        "two": {"name": "captioned", "path": folder(tmp_path / "two", captions)},
    }
    source = built(parts)
    rows = source.training_items()
    assert kind_of_rows(rows) == "examples" and rows.kind == "image" and rows[0].output.shape == (3, 4, 4)
    assert not {p.text for p in rows.prompts()} & {p.text for p in source.held_out_items().prompts()}
    assert len(list(rows.shapes())) == len(rows) == 8 and rows.faults() == []


def test_what_cannot_be_mixed(tmp_path: Path) -> None:
    pairs = jsonl(tmp_path / "q.jsonl", [{"prompt": "x", "chosen": "a", "rejected": "b"}])
    parts = {"p": texts(tmp_path / "p.txt", 2), "q": {"name": "preferences", "path": pairs}}
    with pytest.raises(DataError, match=r"different kinds cannot be mixed \(p: prompts; q: preferences of text\)"):
        built(parts).training_items()
    pictures = {"name": "captioned", "path": folder(tmp_path / "f", {"a": "x"})}
    answers = {"name": "captioned", "path": pairs, "caption": "prompt", "output": "chosen"}
    with pytest.raises(DataError, match=r"\(f: examples of image; q: examples of text\)"):
        built({"f": pictures, "q": answers}).training_items()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"a": {"share": 0.6}}, r"data\.parts: the shares sum to 0\.9, not to 1; write e\.g\. a: 0\.6667, b: 0\.3333"),
        ({"a": {"share": 0}}, r"data\.parts: the share of a is 0, not in \(0, 1\] in steps of 0\.0001"),
        ({"a": {"share": 0.70001}}, r"data\.parts: the share of a is 0\.70001, not in"),
        ({"a": {"fit": "stretch"}}, r"data\.parts: a has a fit of its own, which is one for all parts; write it"),
        (
            {"a": {"colum": "x"}, "b": {"limit": -1}},
            r"(?s)data\.parts\.a\.colum: unknown option.*data\.parts\.b\.limit",
        ),
        ({"a": {"name": "promptz"}}, r"data\.parts\.a\.name: no data is called 'promptz'"),
    ],
)
def test_faults_of_parts_are_told_at_once_and_by_their_place(tmp_path: Path, changes: Any, sentence: str) -> None:
    parts = {name: {**spec, **changes.get(name, {})} for name, spec in two(tmp_path).items()}
    with pytest.raises((ConfigError, CapabilityError), match=sentence):
        built(parts)


def test_other_faults(tmp_path: Path) -> None:
    parts = two(tmp_path)
    del parts["b"]["share"]
    with pytest.raises(ConfigError, match=r"data\.parts: b has no share, and others have"):
        built(parts)
    with pytest.raises(ConfigError, match=r"data\.parts: is empty"):
        built({})


def test_files_of_parts_lie_beside_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path / "p.txt", 3)
    parts = {"own": {"name": "prompts", "path": "p.txt"}}
    assert len(built(parts, tmp_path).training_items()) == 3
    monkeypatch.chdir(tmp_path)
    run = replace(load(CONFIGS / "quickstart" / "image.yaml"), data={"name": "mixture", "parts": parts}, source=None)
    assert anchored(run, built(parts)).data["parts"]["own"]["path"] == str(tmp_path / "p.txt")
