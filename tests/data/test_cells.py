"""What people keep in cells and folders: base64, data URLs, decoded samples, archives that are packed; streams."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch

from mmalign.core.errors import DataError
from mmalign.data.lazy_media import kind_of, require_files
from mmalign.data.sources.captioned import Captioned
from mmalign.data.sources.prompts import Prompts
from mmalign.media.audio import SoundShape
from tests.data.archives import jsonl, png


def test_pictures_in_texts(tmp_path: Path) -> None:
    plain = base64.b64encode(png(20)).decode()
    cells = [plain, f"data:image/png;base64,{plain}", plain[:40] + "\n" + plain[40:]]
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"{i}", "pic": cell} for i, cell in enumerate(cells)])
    assert [round(float(row.output.mean()) * 255) for row in Captioned(path).training_items()] == [20] * 3
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"text": "a", "pic": {"bytes": plain, "path": None}}]), tmp_path / "a.parquet"
    )
    assert Captioned(str(tmp_path / "a.parquet")).training_items()[0].output.shape == (3, 4, 4)
    for text in ("data:image/png;base64,?", "data: what it says", "iVBORw0KGgo is how a PNG begins", plain[:70] + "!"):
        assert kind_of(text, tmp_path) == "text"
    cut = jsonl(tmp_path / "b.jsonl", [{"text": "a", "pic": plain}, {"text": "b", "pic": plain[:32] + "A" * 64}])
    with pytest.raises(DataError, match=r"b\.jsonl:2.*Pillow"):
        require_files(Captioned(cut).training_items())


def test_sounds_that_were_decoded(tmp_path: Path) -> None:
    cells: list[Any] = [
        {"array": [0.5, -0.5, 0.25], "sampling_rate": 8000, "path": None},
        {"array": [[0.5, 0.25], [0.0, 0.25]], "sampling_rate": 16000},
    ]
    rows = [{"text": f"{i}", "audio": cell} for i, cell in enumerate(cells)]
    items = Captioned(jsonl(tmp_path / "a.jsonl", rows)).training_items()
    assert [(row.output.rate, row.output.samples.shape) for row in items] == [(8000, (1, 1, 3)), (16000, (1, 2, 2))]
    assert torch.equal(items[0].output.samples[0, 0], torch.tensor([0.5, -0.5, 0.25]))
    assert [shape for _, shape in items.shapes()] == [SoundShape(8000, 1, 3), SoundShape(16000, 2, 2)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:1] * 4), tmp_path / "a.parquet")
    assert Captioned(str(tmp_path / "a.parquet")).training_items()[3].output.samples.shape == (1, 1, 3)
    several = [{"text": f"{i}", "audio": {"array": [i / 10], "sampling_rate": 8000}} for i in range(8)]
    assert len(Captioned(jsonl(tmp_path / "b.jsonl", several), held_out=0.5).held_out_items()) == 4
    for array, rate, why in (([], 8000, "finite"), ([0.1, "x"], 8000, "does not hold"), ([0.1], 0, "expected Hz")):
        bad = jsonl(tmp_path / "c.jsonl", [{"text": "a", "audio": {"array": array, "sampling_rate": rate}}])
        with pytest.raises(DataError, match=rf"c\.jsonl:1: '(array|sampling_rate)'.*{why}"):
            require_files(Captioned(bad).training_items())


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.jsonl.zst"])
def test_packed_files_are_told_how_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"{name}: is packed, and rows are read where they lie; unpack it first: "):
        Captioned(str(tmp_path / name)).training_items()


def test_a_stream_says_what_it_keeps_and_draws_by_a_seed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    for part in range(3):
        jsonl(tmp_path / "d" / f"train-{part}.jsonl", [{"prompt": f"{part}.{i}"} for i in range(20)])

    def texts(**options: Any) -> list[str]:
        source = Prompts(f"hub:{tmp_path}/d", streaming=True, limit=10, **options)
        return [row.text for row in source.training_items()]

    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert texts() == [f"0.{i}" for i in range(10)]
        assert "of the stream, the first 10 rows alone are kept (data.limit)" in caplog.text
        drawn = texts(shuffle_buffer=30)
        assert "10 rows are kept, drawn through a buffer of 30" in caplog.text
    expected = datasets.load_dataset(str(tmp_path / "d"), split="train", streaming=True)
    expected = expected.shuffle(seed=0, buffer_size=30).take(10)
    assert drawn == [row["prompt"] for row in expected] and drawn != texts()
    other = texts(shuffle_buffer=30, shuffle_seed=1)
    assert sorted(other) != sorted(drawn) and len({*other}) == 10
    for part in range(3):
        (tmp_path / "d" / f"train-{part}.jsonl").write_text('{"prompt": "changed"}\n' * 20)
    assert texts(shuffle_buffer=30) == drawn  # a resumed run reads the same rows
    with pytest.raises(ValueError, match="shuffle_buffer: is of a stream; set streaming: true"):
        Prompts("a.jsonl", shuffle_buffer=3)
