"""`skip_bad` of every source, in every form that its rows come in: three broken rows among many, the first one too."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from mmalign.core.errors import DataError
from mmalign.data import data_sources
from mmalign.data.file_source import FileSource
from mmalign.data.like_training import prompts_like
from mmalign.data.row_kinds import prompts_of
from tests.data.archives import folder, jsonl, png, tar

MANY, BROKEN = 12, (0, 5, 11)
Row = dict[str, Any]


def turns(number: int) -> list[Row]:
    return [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "yes"}]


#: By source: a good row, and what is wrong with each of the broken ones.
ROWS: dict[str, tuple[Callable[[int], Row], list[Row]]] = {
    "prompts": (lambda i: {"prompt": f"q{i}", "fact": "x"}, [{"prompt": None}, {"prompt": " "}, {"prompt": ""}]),
    "captioned": (
        lambda i: {"text": f"q{i}", "picture": "good.png"},
        [{"text": None}, {"picture": "junk.png"}, {"picture": "missing.png"}],
    ),
    "preferences": (
        lambda i: {"prompt": f"q{i}", "chosen": "good.png", "rejected": "other.png"},
        [{"chosen": None}, {"rejected": "junk.png"}, {"prompt": ""}],
    ),
    "conversations": (
        lambda i: {"messages": turns(i)},
        [{"messages": None}, {"messages": turns(1)[:1]}, {"messages": [{"role": "nobody", "content": "x"}]}],
    ),
}
FORMS = ("jsonl", "parquet", "saved", "streamed", "csv")


def broken(name: str) -> list[Row]:
    good, faults = ROWS[name]
    rows = [good(i) for i in range(MANY)]
    for at, fault in zip(BROKEN, faults, strict=True):
        rows[at] = rows[at] | fault
    return rows


def written(name: str, form: str, place: Path) -> str:
    """The rows in one of the forms that they come in."""
    (place / "good.png").write_bytes(png(9))
    (place / "other.png").write_bytes(png(50))
    (place / "junk.png").write_bytes(b"junk")
    rows, table = broken(name), pyarrow.Table.from_pylist(broken(name))
    if form == "jsonl":
        return jsonl(place / "rows.jsonl", rows)
    if form == "csv":
        lines = [",".join(str(cell or "") for cell in row.values()) for row in rows]
        (place / "rows.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
        return str(place / "rows.csv")
    if form == "saved":
        with_cells = [{key: whole(cell, place) for key, cell in row.items()} for row in rows]
        datasets.Dataset.from_list(with_cells).save_to_disk(str(place / "saved"))
        return str(place / "saved")
    (place / "train").mkdir()
    file = place / ("rows.parquet" if form == "parquet" else "train/rows.parquet")
    pyarrow.parquet.write_table(table, file)
    return str(file) if form == "parquet" else f"hub:{place}/train"


def whole(cell: Any, place: Path) -> Any:
    """A cell that means the same from every folder."""
    return str(place / cell) if isinstance(cell, str) and cell.endswith(".png") else cell


def test_every_source_of_files_is_here() -> None:
    classes = {name: data_sources.get(name) for name in data_sources.names()}
    assert {name for name, kind in classes.items() if issubclass(kind, FileSource)} == set(ROWS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("mixed", [False, True])
def test_broken_rows_are_left_out_and_counted(
    tmp_path: Path, name: str, form: str, mixed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "conversations" and form == "csv":
        pytest.skip("cells of CSV are texts")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    spec: Row = {"name": name, "path": written(name, form, tmp_path), "skip_bad": True}
    if form == "streamed":
        spec |= {"streaming": True, "limit": MANY}
        if name in ("captioned", "preferences"):
            pytest.skip("paths of files are of no dataset")
    if mixed:
        spec = {"name": "mixture", "parts": {"mine": spec}}
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        rows = data_sources.build(spec, "data", relative_to=tmp_path).training_items()
    texts = [prompt.text for prompt in prompts_of(rows)]
    assert texts == [f"q{i}" for i in range(MANY) if i not in BROKEN]
    assert list(rows)  # each of them can be made
    assert "skip_bad: 3 rows and files are left out, 9 rows stay; the first: " in caplog.text
    place = ":1: " if form == "jsonl" else ":2: " if form == "csv" else ", row 0: "
    assert place in caplog.text.replace(", '", ": '").replace(": 'chosen'", ": ")


@pytest.mark.parametrize("name", ROWS)
def test_all_of_them_are_broken(tmp_path: Path, name: str) -> None:
    good, faults = ROWS[name]
    path = jsonl(tmp_path / "rows.jsonl", [good(i) | faults[0] for i in range(3)])
    with pytest.raises(DataError, match=r"rows\.jsonl: .*(skip_bad leaves no row; the first of 3|no column)"):
        data_sources.build({"name": name, "path": path, "skip_bad": True}, "data").training_items()


def test_lines_that_are_no_row_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [json.dumps({"prompt": f"q{i}"}).encode() for i in range(6)]
    lines[0], lines[2], lines[5] = b"{no json", b'{"prompt": "\xff"}', b"[1]"
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "rows.txt").write_bytes(b"q1\n\xff\nq3\n")
    (tmp_path / "rows.csv").write_text("prompt,by\nq1,me\nq2\nq3,me\n")
    for name, left in (("rows.jsonl", ["q1", "q3", "q4"]), ("rows.txt", ["q1", "q3"]), ("rows.csv", ["q1", "q3"])):
        spec = {"name": "prompts", "path": str(tmp_path / name)}
        with pytest.raises(DataError, match=f"{name}:[123]: "):
            data_sources.build(spec, "data").training_items()
        with caplog.at_level(logging.WARNING, logger="mmalign"):
            source = data_sources.build({**spec, "skip_bad": True}, "data")
        assert [row.text for row in source.training_items()] == left
        assert f"left out, {len(left)} rows stay; the first: {tmp_path / name}:" in caplog.text
        assert [prompt.text for prompt in prompts_like(source, spec["path"])] == left
    (tmp_path / "rows.jsonl").write_bytes(b"no\nno\n")
    with pytest.raises(DataError, match="skip_bad leaves no row; the first of 2"):
        data_sources.build(spec | {"path": f"{tmp_path}/rows.jsonl", "skip_bad": True}, "data").training_items()


def test_broken_members_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = (("png", png(3)), ("json", b'{"text": "q"}'))
    members = [(f"{i}.{suffix}", data) for i in range(5) for suffix, data in parts]
    members[3] = ("1.json", b"[1")
    members[6] = ("3.png", b"junk")
    members.insert(9, ("4.jpg", png(7)))
    shard = tar(tmp_path / "s.tar", *members)
    photos = Path(folder(tmp_path / "photos", {name: f"of {name}" for name in "abcd"}))
    (photos / "b.jpg").write_bytes(png(1))
    (photos / "c.txt").write_bytes(b"\xff")
    songs = Path(folder(tmp_path / "songs", {}))
    rows = [{"file_name": name, "text": "x"} for name in ("../a.png", "a.png", "b.png")]
    jsonl(songs / "metadata.jsonl", rows)
    (songs / "a.png").write_bytes(png(1))
    expected = {shard: ["0", "2"], str(photos): ["a.png", "d.png"], str(songs): ["metadata.jsonl:2"]}
    for path, left in expected.items():
        with pytest.raises(DataError):
            data_sources.build({"name": "captioned", "path": path}, "data").training_items()
        with caplog.at_level(logging.WARNING, logger="mmalign"):
            items = data_sources.build({"name": "captioned", "path": path, "skip_bad": True}, "data").training_items()
        assert [row.prompt.place.removeprefix(f"{path}/") for row in items] == left
        assert [tuple(row.output.shape) for row in items] == [(3, 4, 4)] * len(left)
        assert f"{path}: skip_bad: " in caplog.text or "metadata.jsonl: skip_bad: 2 rows" in caplog.text
