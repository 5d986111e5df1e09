"""Captions with pictures, sounds or texts, wherever they lie: decoded when indexed, refused or skipped if bad."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from mmalign.core.errors import DataError
from mmalign.core.types import Audio, Example
from mmalign.data.lazy_media import require_files
from mmalign.data.row_kinds import kind_of_rows
from mmalign.data.sources.captioned import Captioned
from mmalign.data.sources.prompts import Prompts
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.testing import check_data_source
from tests.data.archives import folder, jsonl, png, tar


def read(source: Captioned) -> list[tuple[str, int]]:
    """Captions, and how grey the pictures are."""
    return [(row.prompt.text, round(float(row.output.mean()) * 255)) for row in source.training_items()]


def test_texts_beside_pictures(tmp_path: Path) -> None:
    source = Captioned(folder(tmp_path / "p" / "deep", {"a": "one\n", "b.c": "two"}))
    assert read(source) == [("one", 0), ("two", 20)]
    rows = source.training_items()
    assert isinstance(rows[0], Example) and kind_of_rows(rows) == "examples" and rows.kind == "image"
    assert rows[1].prompt.place == str(tmp_path / "p" / "deep" / "b.c.png")
    assert [p.text for p in Prompts(str(tmp_path / "p"), column="text").training_items()] == ["one", "two"]
    check_data_source(Captioned(folder(tmp_path / "q", {f"{i}": f"{i}" for i in range(8)}), held_out=0.5))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_the_convention_of_imagefolder(tmp_path: Path, suffix: str) -> None:
    import datasets

    (tmp_path / "train" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "sub/b.png")):
        (tmp_path / "train" / name).write_bytes(png(number * 20))
    described = {"file_name": ["a.png", "sub/b.png"], "text": ["one", "two"], "by": ["x", "y"]}
    table, file = pyarrow.table(described), tmp_path / "train" / f"metadata.{suffix}"
    if suffix == "jsonl":
        jsonl(file, table.to_pylist())
    elif suffix == "csv":
        file.write_text("file_name,text,by\na.png,one,x\nsub/b.png,two,y\n")
    else:
        pyarrow.parquet.write_table(table, file)
    source = Captioned(str(tmp_path))
    assert read(source) == [("one", 0), ("two", 20)]
    assert source.training_items()[1].prompt.meta == {"by": "y"}
    theirs = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert [(row["text"], row["image"].getpixel((0, 0))[0]) for row in theirs] == read(source)


def test_other_names_of_files_and_both_kinds_of_media(tmp_path: Path) -> None:
    write_audio(torch.zeros(1, 80), 8_000, tmp_path / "a.wav")
    (tmp_path / "a.png").write_bytes(png(9))
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "a.wav", "cover_file_name": "a.png", "text": "a song"}])
    (row,) = Captioned(str(tmp_path), image="cover").training_items()
    assert isinstance(row.output, Audio) and row.output.rate == 8_000 and list(row.prompt.media) == ["image"]
    (tmp_path / "metadata.jsonl").rename(tmp_path / "other.jsonl")
    (tmp_path / "a.txt").write_text("a song")
    (row,) = Captioned(str(tmp_path), output="audio", image="image").training_items()
    assert isinstance(row.output, Audio) and row.prompt.media["image"].shape == (3, 4, 4)


def test_tables_of_bytes_paths_and_both(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(20))
    cells = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "a.png"}]
    table = pyarrow.Table.from_pylist([{"caption": f"{i}", "pic": cell, "raw": png(9)} for i, cell in enumerate(cells)])
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    named = {"caption": "caption", "output": "pic"}
    assert read(Captioned(str(tmp_path / "p.parquet"), **named)) == [("0", 0), ("1", 20)]  # type: ignore[arg-type]
    assert read(Captioned(str(tmp_path / "p.parquet"), caption="caption", output="raw")) == [("0", 9), ("1", 9)]
    assert read(Captioned(jsonl(tmp_path / "p.jsonl", [{"text": "x", "file": "a.png"}]))) == [("x", 20)]
    answers = Captioned(jsonl(tmp_path / "t.jsonl", [{"q": "2+2", "a": "4"}]), caption="q", output="a")
    assert answers.training_items()[0].output == "4" and answers.training_items().kind == "text"


def test_shards_of_webdataset(tmp_path: Path) -> None:
    import datasets

    for shard in range(2):
        members = []
        for i in range(3):
            number = shard * 3 + i
            fact = json.dumps({"n": number}).encode()
            parts = {"png": png(number), "txt": f"t{number}".encode(), "json": fact}
            members += [(f"./k{number}.{suffix}", data) for suffix, data in parts.items()]
        tar(tmp_path / f"s-{shard:03d}.tar", *members)
    expected = [(f"t{i}", i) for i in range(6)]
    for reference in ("s-{000..001}.tar", "s-*.tar", "s-{000,001}.tar"):
        source = Captioned(reference, relative_to=tmp_path)
        assert read(source) == expected
    row = source.training_items()[4]
    assert row.prompt.meta == {"__key__": "./k4", "n": 4} and row.prompt.place == f"{tmp_path}/s-001.tar/./k4"
    assert read(Captioned(str(tmp_path))) == expected and read(Captioned(str(tmp_path / "s-001.tar"))) == expected[3:]
    files = sorted(str(file) for file in tmp_path.glob("*.tar"))
    theirs = datasets.load_dataset("webdataset", data_files=files, split="train")
    assert [(each["txt"], each["png"].getpixel((0, 0))[0]) for each in theirs] == expected


def test_bad_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s-2\.tar: no such archive"):
        Captioned("s-{2..2}.tar", relative_to=tmp_path).training_items()
    twice = tar(tmp_path / "a.tar", ("c.png", png(0)), ("c.jpg", png(0)), ("d.json", b"[1"), ("e.json", b"[1]"))
    with pytest.raises(DataError) as caught:
        Captioned(twice).training_items()
    faults = str(caught.value).split("\n")
    assert "a.tar/c.jpg: two cells of one row are called 'image' (the other is of c.png)" in faults[0]
    assert "d.json: not valid JSON" in faults[1] and "e.json: must hold a JSON object" in faults[2]
    (tmp_path / "b.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"b\.tar: not a tar file that can be read"):
        Captioned(str(tmp_path / "b.tar")).training_items()
    source = Captioned(tar(tmp_path / "d.tar", ("a.png", png(0)), ("a.txt", b"x")))
    rows = source.training_items()
    tar(tmp_path / "d.tar", ("a.png", png(0)), ("a.txt", b"longer"), ("b.txt", b"y"))
    with pytest.raises(DataError, match=r"d\.tar: was written to after it was read"):
        rows[0].output.sum()


def test_what_is_missing_is_told_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(folder(tmp_path / "p", {"a": "one", "empty": "  ", "broken": "x", "z": "two"}))
    (path / "broken.png").write_bytes(b"junk")
    (path / "bare.png").write_bytes(png(1))
    (path / "lonely.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        Captioned(str(path)).training_items()
    faults = str(caught.value).split("\n")
    assert faults[0].startswith(f"{path}/bare.png: 'text' is missing") and len(faults) == 3
    assert faults[1].startswith(f"{path}/empty.png: 'text' is empty")
    assert faults[2].startswith(f"{path}/lonely.txt: no picture or sound of its name. Add what is missing")
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        rows = Captioned(str(path), skip_bad=True).training_items()
    assert [row.prompt.text for row in rows] == ["one", "two"]
    assert "skip_bad: 4 rows and files are left out, 2 rows stay; the first: " in caplog.text
    for name in ("bare.png", "empty.txt", "empty.png", "lonely.txt"):
        (path / name).unlink()
    with pytest.raises(DataError, match=r"broken\.png .*Pillow .* does not recognise a picture"):
        require_files(Captioned(str(path)).training_items())


def test_names_as_systems_write_them(tmp_path: Path) -> None:
    apart, together_ = (unicodedata.normalize(form, "é") for form in ("NFD", "NFC"))
    for path in (tmp_path / "t", tmp_path / "m"):
        path.mkdir()
        (path / f"{apart}.png").write_bytes(png(1))
        (path / "UP.PNG").write_bytes(png(2))
        (path / "link.png").symlink_to(path / "UP.PNG")
    (tmp_path / "t" / f"{together_}.txt").write_text("accent")
    (tmp_path / "t" / "UP.TXT").write_text("upper")
    (tmp_path / "t" / "link.txt").write_text("link")
    jsonl(tmp_path / "m" / "metadata.jsonl", [{"file_name": n, "text": n} for n in (f"{together_}.png", "UP.PNG")])
    (tmp_path / "m" / "link.png").unlink()
    assert sorted(read(Captioned(str(tmp_path / "t")))) == [("accent", 1), ("link", 2), ("upper", 2)]
    assert read(Captioned(str(tmp_path / "m"))) == [(f"{together_}.png", 1), ("UP.PNG", 2)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
def test_a_picture_that_broke_off_is_found_at_the_start(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_image(torch.rand(3, 200, 300), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.save(tmp_path / f"{name}.{suffix}")
        if suffix != "png":
            (tmp_path / f"{name}.png").unlink()
        (tmp_path / f"{name}.txt").write_text(name)
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(file.read_bytes()[:-9000])
    with pytest.raises(DataError, match=rf"a\.{suffix} .*Pillow .* could not decode"):
        require_files(Captioned(str(tmp_path)).training_items())
    assert [row.prompt.text for row in Captioned(str(tmp_path), skip_bad=True).training_items()] == ["b"]


def test_metadata_and_files_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(1))
    file = tmp_path / "metadata.jsonl"
    jsonl(file, [{"file_name": "a.png", "text": "x"}, {"file_name": "gone.png", "text": "y"}])
    with pytest.raises(DataError, match=r"b\.png: no row of .*metadata\.jsonl names it\. Add what is missing"):
        Captioned(str(tmp_path)).training_items()
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"metadata\.jsonl:2: .*gone\.png cannot be read"):
        require_files(Captioned(str(tmp_path)).training_items())
    jsonl(file, [{"file_name": "../../etc/a.png", "text": "x"}])
    with pytest.raises(DataError, match=r"metadata\.jsonl:1: 'file_name' is '\.\./\.\./etc/a\.png', which leads out"):
        Captioned(str(tmp_path)).training_items()
    jsonl(file, [{"file_name": "a.png", "image": "x", "text": "x"}])
    with pytest.raises(DataError, match=r"two columns are called 'image' \(file_name is the column of its pictures"):
        Captioned(str(tmp_path)).training_items()
    jsonl(file, [{"name": "a.png", "text": "x"}])
    with pytest.raises(DataError, match=r"no column 'file_name' .* Columns found: name, text"):
        Captioned(str(tmp_path)).training_items()
    jsonl(file, [{"file_name": "a.png", "texts": "x"}])
    with pytest.raises(DataError, match=r"no column 'text' with the captions\. Did you mean 'texts'\?"):
        Captioned(str(tmp_path)).training_items()
    jsonl(tmp_path / "more.jsonl", [{"text": "x", "y": "z"}])
    with pytest.raises(DataError, match=r"no column holds pictures or sounds; set data\.output .* found: text, y"):
        Captioned(str(tmp_path / "more.jsonl")).training_items()


def test_one_caption_or_one_picture_is_on_one_side(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", {f"{i}": f"caption {i // 2}" for i in range(12)})
    for name in ("4", "7"):
        (tmp_path / "p" / f"{name}.png").write_bytes(png(250))
    source = Captioned(path, held_out=0.4)
    sides = [{row.prompt.text for row in side} for side in (source.training_items(), source.held_out_items())]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6
    both = {"caption 2", "caption 3"}
    assert both <= sides[0] or both <= sides[1]
