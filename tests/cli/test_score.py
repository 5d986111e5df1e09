"""`mmalign score` on rows and folders as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmalign.media.image import write_image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures, one with a text."""
    folder, rng = tmp_path / "pics", torch.Generator().manual_seed(0)
    folder.mkdir()
    for name in "ab":
        write_image(torch.rand(3, 32, 32, generator=rng), folder / f"{name}.png")
    (folder / "a.txt").write_bytes("\ufeffa red circle\r\n".encode())
    return folder


def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_null_is_for_what_may_be_left_out(call: Any, tmp_path: Path) -> None:
    rows, words = tmp_path / "rows.jsonl", ("--reward", "length", "--set", "high=5")
    whole = {"prompt": "a", "output": "b", "meta": None, "group": None, "image": None, "audio": None}
    rows.write_text(json.dumps(whole))
    assert call("score", rows, *words)[0] == 0
    rows.write_text("\n".join(json.dumps({**whole, key: None}) for key in ("output", "prompt", "group")))
    code, _, err = call("score", rows, *words)
    assert code == 2 and "Traceback" not in err
    assert f"{rows}:1: field 'output' must be str, found null." in err
    assert f"{rows}:2: field 'prompt' must be str, found null." in err and f"{rows}:3" not in err


def test_texts_beside_pictures_lose_their_mark_and_foreign_ones_are_named(call: Any, pictures: Path) -> None:
    from mmalign.run.score import read_rows

    assert [row.prompt.text for row in read_rows(pictures)] == ["a red circle", ""]
    for name in "ab":
        (pictures / f"{name}.txt").write_bytes(b"ein roter Kreis\n\xfcber allem")
    code, _, err = call("score", pictures, "--reward", "sharpness")
    assert code == 2 and "Traceback" not in err
    assert "a.txt:2: not UTF-8 text" in err and "b.txt:2: not UTF-8 text" in err


def test_lines_of_media_name_their_output_and_what_is_left_out_is_said(call: Any, pictures: Path) -> None:
    for name, mode in (("c.gif", "P"), ("d.bmp", "RGB")):
        Image.new(mode, (32, 32)).save(pictures / name)
    code, out, err = call("score", pictures, "--reward", "sharpness")
    assert code == 0 and err == ""
    assert [(line["output"], line["status"]) for line in lines_of(out)] == [
        (name, "ok") for name in ("a.png", "b.png", "c.gif", "d.bmp")
    ]
    (pictures / "more").mkdir()
    for name in ("x.tiff", "lonely.txt", ".hidden"):
        (pictures / name).write_text("x")
    _, again, err = call("score", pictures, "--reward", "sharpness")
    assert again == out
    assert err == f"note: {pictures}: 3 left out, no picture, no sound and no text of one: lonely.txt, more/, x.tiff\n"
    for i in range(5):
        (pictures / f"{i}.md").write_text("x")
    assert ": 0.md, 1.md, 2.md, 3.md, 4.md, …\n" in call("score", pictures, "--reward", "sharpness")[2]
    rows = pictures.parent / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "output": "pics/c.gif"}))
    assert lines_of(call("score", rows, "--reward", "sharpness")[1])[0]["output"] == "pics/c.gif"
    rows.write_text(json.dumps({"prompt": "a", "output": "a text"}))
    _, out, _ = call("score", rows, "--reward", "length", "--set", "high=5")
    assert "output" not in lines_of(out)[0]


@pytest.mark.parametrize("named", [".", "../pics", "more/.."])
def test_a_cache_lies_beside_a_folder_however_it_is_named(
    call: Any, pictures: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (pictures / "more").mkdir()
    monkeypatch.chdir(pictures)
    code, _, err = call("score", named, "--reward", "sharpness", "--cache")
    assert code == 0, err
    assert (pictures.parent / "pics.scores.sqlite").is_file()


def test_what_is_scored_is_never_overwritten(call: Any, pictures: Path) -> None:
    rows = pictures.parent / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "output": "b"}) + "\n")
    (pictures.parent / "link.jsonl").symlink_to(rows)
    before = rows.read_bytes()
    for out in ("rows.jsonl", "pics/../rows.jsonl", "link.jsonl"):
        words = ("--reward", "length", "--set", "high=5", "--out", pictures.parent / out)
        code, _, err = call("score", rows, *words)
        assert code == 2 and f"{out}: is what is scored and would be lost; name another file." in err
    assert rows.read_bytes() == before
    code, _, err = call("score", pictures, "--reward", "sharpness", "--out", pictures / "a.png")
    assert code == 2 and "a.png: is what is scored" in err
    assert call("score", pictures, "--reward", "sharpness", "--out", pictures / "scores.jsonl")[0] == 0
    assert call("score", pictures, "--reward", "sharpness", "--out", pictures / "scores.jsonl")[0] == 0


def test_pictures_without_a_text_are_not_held_to_one(call: Any, pictures: Path) -> None:
    code, out, err = call("score", pictures, "--reward", "clip", "--set", "checkpoint=assets/scenes_clip")
    assert code == 0, err
    asked, unasked = lines_of(out)
    assert asked["status"] == "ok" and asked["value"] is not None
    assert (unasked["status"], unasked["value"], unasked["info"]) == ("not_applicable", None, "the prompt is empty")
