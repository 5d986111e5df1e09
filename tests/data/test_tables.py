"""Rows are those of Python's own readers, whatever the file; nothing of them is held, and faults have their places."""

from __future__ import annotations

import csv
import io
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import ConfigError, DataError
from mmalign.data import sampled as sampling
from mmalign.data import tables
from mmalign.data.column_rows import BLOCK, ArrowRows
from mmalign.data.hub import DatasetOptions
from mmalign.data.sources.prompts import Prompts
from mmalign.data.tables import read_table
from tests.data.archives import jsonl, png

ODD: list[dict[str, Any]] = [
    {"prompt": "a", "mixed": 1, "date": "2024-01-02", "big": 2**80},
    {"prompt": "b", "mixed": "two", "nested": {"x": [1, {"y": None}]}, "float": 1.0},
    {"prompt": "c\r\nd\u2028e", "mixed": [1, "x", None], "date": None, "true": True},
]


def test_json_of_any_types_is_unchanged(tmp_path: Path) -> None:
    table = read_table(jsonl(tmp_path / "p.jsonl", ODD))
    assert list(table.rows) == ODD and [table.rows[i] for i in (2, 0, 1)] == [ODD[2], ODD[0], ODD[1]]
    assert [type(row.get("mixed")) for row in table.rows] == [int, str, list]
    assert table.columns == ["prompt", "mixed", "date", "big", "nested", "float", "true"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=3, max_size=3), min_size=1, max_size=8
    )
)
def test_cells_of_csv_are_those_of_pythons_reader(cells: list[list[str]]) -> None:
    import tempfile

    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["x", "y", "z"], *cells])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.csv"
        path.write_bytes(written.getvalue().encode())
        expected = list(csv.DictReader(io.StringIO(written.getvalue().replace("\r\n", "\n"), newline=""), strict=True))
        table = read_table(str(path))
        assert list(table.rows) == expected == [table.rows[i] for i in range(len(expected))]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_csv_of_other_systems_and_cells_of_several_lines(tmp_path: Path, ends: str) -> None:
    lines = ["\ufeffprompt,n", '"a', 'b",1', "", "c,2"]
    (tmp_path / "p.csv").write_bytes(ends.join(lines).encode())
    table = read_table(str(tmp_path / "p.csv"))
    inside = "\n" if ends == "\r\n" else ends
    assert list(table.rows) == [{"prompt": f"a{inside}b", "n": "1"}, {"prompt": "c", "n": "2"}]
    assert [table.place(i).rpartition(":")[2] for i in range(2)] == ["3", "5"]


def test_all_faults_of_lines_with_their_places(tmp_path: Path) -> None:
    text = '{"prompt": "a"}\n{"prompt": 1, "prompt": 2}\n[1]\n{"x": {"y": 1, "y": 2}}\n{"prompt": }\n'
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        Prompts(str(tmp_path / "p.jsonl")).training_items()
    faults = str(caught.value).split("\n")
    assert [fault.partition("p.jsonl:")[2][:1] for fault in faults] == ["2", "3", "4", "5"]
    assert "the key 'prompt' stands twice; rename or remove one" in faults[0] and "the key 'y' stands" in faults[2]
    jsonl(tmp_path / "q.jsonl", [{"prompt": "x"}, *[{"prompt": ""}] * 30])
    with pytest.raises(DataError, match=r"(?s)q\.jsonl:2: 'prompt' is empty.*… and 10 more\.$"):
        Prompts(str(tmp_path / "q.jsonl")).training_items()


def test_a_file_that_changes_under_a_run_is_told_one_that_is_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = Prompts(jsonl(path, [{"prompt": "a"}, {"prompt": "b"}])).training_items()
    path.unlink()
    jsonl(path, [{"prompt": "other"}])
    assert [row.text for row in rows] == ["a", "b"]
    rows = Prompts(str(path)).training_items()
    with path.open("a") as file:
        file.write('{"prompt": "more"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl: was written to after it was read"):
        rows[0]


def test_parquet_in_memory_and_mapped_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"prompt": f"p{i}", "when": datetime(2024, 1, 1 + i % 9), "list": [i], "raw": b"x"} for i in range(3 * BLOCK)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet", row_group_size=100)
    first = read_table(str(tmp_path / "p.parquet"))
    monkeypatch.setattr(tables, "IN_MEMORY", 0)
    second = read_table(str(tmp_path / "p.parquet"))
    assert len(list((tmp_path / "cache" / "mmalign").glob("*.arrow"))) == 1
    for table in (first, second):
        assert [dict(row) for row in table.rows] == rows
        assert [dict(table.rows[i]) for i in (700, 3, 4, 5, 299)] == [rows[i] for i in (700, 3, 4, 5, 299)]


def test_bytes_are_left_where_they_are_until_they_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"prompt": f"{i}", "image": cell} for i, cell in enumerate(cells)]),
        tmp_path / "p.parquet",
    )
    rows = Prompts(str(tmp_path / "p.parquet"), image="image").training_items()
    looked_at: list[int] = []
    real = ArrowRows.value

    def noted(self: ArrowRows, index: int, column: str) -> Any:
        looked_at.append(index)
        return real(self, index, column)

    monkeypatch.setattr(ArrowRows, "value", noted)
    assert [row.text for row in rows] == ["0", "1", "2"] and not looked_at
    assert rows[1].media["image"].shape == (3, 4, 4) and set(looked_at) == {1}


def test_very_many_rows_are_looked_into_by_a_share_which_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "MOST", 10)
    assert sampling.sampled(range(10)) == range(10) and sampling.sampled(range(25)) == range(0, 25, 3)
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        sampling.say_sampled(range(10))
        assert not caplog.text
        sampling.say_sampled(range(25))
    assert "of 25 rows, 9 at even distances are looked into" in caplog.text


def hub(path: Path, **files: list[dict[str, Any]]) -> str:
    path.mkdir(exist_ok=True)
    for name, rows in files.items():
        jsonl(path / f"{name}.jsonl", rows)
    return f"hub:{path}"


def test_options_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    named = hub(
        tmp_path / "d", train=[{"prompt": f"p{i}"} for i in range(10)], test=[{"prompt": "t"}, {"prompt": "p3"}]
    )

    def texts(**options: Any) -> list[str]:
        return [row.text for row in Prompts(named, **options).training_items()]

    assert texts() == [f"p{i}" for i in range(10)] and texts(split="test") == ["t", "p3"]
    assert texts(split="train[:20%]") == ["p0", "p1"] and texts(data_files="test.jsonl") == ["t", "p3"]
    assert texts(limit=3) == texts(limit=3, streaming=True) == ["p0", "p1", "p2"]
    assert texts(data_files={"train": "test.jsonl"}) == ["t", "p3"]
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert texts(limit=3, streaming=True) == ["p0", "p1", "p2"]  # of what was fetched before, as a resumed run
    assert "the rows that were fetched before are read; to fetch them again, delete" in caplog.text
    with pytest.raises(
        DataError, match=r"data\.streaming fetches the first data\.limit rows .* there is no data\.limit"
    ):
        texts(streaming=True)
    with pytest.raises(DataError, match=r"no split 'tests'\. Did you mean 'test'\? Splits: train, test"):
        texts(split="tests")
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        source = Prompts(named, held_out_split="test")
        assert [row.text for row in source.held_out_items()] == ["t", "p3"] and len(source.training_items()) == 10
    assert "1 of 2 held-out prompts" in caplog.text
    with pytest.raises(ConfigError, match="is 'train', the split that is trained on; name another"):
        Prompts(named, held_out_split="train")
    with pytest.raises(ConfigError, match="held_out_split: set it, held_out or held_out_path: one"):
        Prompts(named, held_out_split="test", held_out=0.1)


def test_options_that_a_file_has_no_use_for(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", [{"prompt": "x"}])
    with pytest.raises(
        DataError, match=r"is a file, and data\.config: 'x', data\.revision: 'y' is of datasets of the Hub"
    ):
        read_table(file, options=DatasetOptions(config="x", revision="y"))
    with pytest.raises(DataError, match=r"is a folder, and data\.streaming: True is of datasets of the Hub"):
        read_table(str(tmp_path), options=DatasetOptions(streaming=True))


def test_values_of_json_and_their_rows_by_datasets(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"prompt": f"{i}", "n": i, "l": ["a"]} for i in range(600)]).save_to_disk(
        tmp_path / "s"
    )
    table = read_table(str(tmp_path / "s"))
    assert [dict(row) for row in table.rows] == [{"prompt": f"{i}", "n": i, "l": ["a"]} for i in range(600)]
    assert json.dumps(dict(table.rows[599])) == '{"prompt": "599", "n": 599, "l": ["a"]}'
