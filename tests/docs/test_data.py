"""Every snippet of docs/data.md is written to a folder and read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from mmalign.data import data_sources
from mmalign.data.lazy_media import require_files
from mmalign.media.audio import write_audio
from tests.data.archives import jsonl, png, tar
from tests.docs.blocks import named_blocks

SNIPPETS = named_blocks("data.md")
RUNS = [name for name in SNIPPETS if name.endswith(".yaml")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and the pictures and sounds that they name."""
    folder = tmp_path_factory.mktemp("data")
    for name, text in SNIPPETS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for number, name in enumerate("ab"):
        (folder / "photos" / f"{name}.png").write_bytes(png(number * 40))
    for name in ("one", "two"):
        write_audio(torch.zeros(1, 800), 8_000, folder / "songs" / f"{name}.wav")
    (folder / "shards").mkdir()
    for number in range(2):
        parts = (("k.png", png(number)), ("k.txt", b"a lamp"), ("k.json", b'{"by": "me"}'))
        tar(folder / "shards" / f"part-{number:03d}.tar", *parts)
    (folder / "published").mkdir()
    jsonl(folder / "published" / "train-0.jsonl", [{"caption": "2 + 2", "answer": "4"}])
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_snippet_is_read(folder: Path, name: str) -> None:
    spec = yaml.safe_load(SNIPPETS[name])["data"]
    if str(spec.get("path", "")).startswith("hub:"):  # a folder is read as a dataset of the Hub is
        spec |= {"path": f"hub:{folder}/published"}
        spec.pop("revision")
    source = data_sources.build(spec, "data", relative_to=folder)
    rows = source.training_items()
    assert len(rows) and all(getattr(row, "prompt", row).text for row in rows)
    require_files(rows, source.held_out_items())


def test_the_page_has_rows_for_all_of_them() -> None:
    named = {yaml.safe_load(SNIPPETS[name])["data"]["name"] for name in RUNS}
    assert named == set(data_sources.names()) - {"scenes"}  # which are drawn


def test_what_the_page_says_of_a_lonely_picture(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "b.txt").unlink()
    spec = {"name": "captioned", "path": "photos"}
    with pytest.raises(ValueError, match=r"b\.png: 'text' is missing"):
        data_sources.build(spec, "data", relative_to=tmp_path).training_items()
    few = data_sources.build({**spec, "skip_bad": True}, "data", relative_to=tmp_path).training_items()
    assert [row.prompt.text for row in few] == ["a lamp on a table"]
