"""`mmalign score` on rows and folders as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmalign.media.image import write_image

SAID = "checking what 'sharpness' is to score …\n"


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
    from mmalign.run.rows import read_output_rows

    assert [row.prompt.text for row in read_output_rows(pictures)] == ["a red circle", ""]
    for name in "ab":
        (pictures / f"{name}.txt").write_bytes(b"ein roter Kreis\n\xfcber allem")
    code, _, err = call("score", pictures, "--reward", "sharpness")
    assert code == 2 and "Traceback" not in err
    assert "a.txt:2: not UTF-8 text" in err and "b.txt:2: not UTF-8 text" in err


def test_lines_of_media_name_their_output_and_what_is_left_out_is_said(call: Any, pictures: Path) -> None:
    for name, mode in (("c.gif", "P"), ("d.bmp", "RGB")):
        Image.new(mode, (32, 32)).save(pictures / name)
    code, out, err = call("score", pictures, "--reward", "sharpness")
    assert code == 0 and err == SAID
    assert [(line["output"], line["status"]) for line in lines_of(out)] == [
        (name, "ok") for name in ("a.png", "b.png", "c.gif", "d.bmp")
    ]
    (pictures / "more").mkdir()
    for name in ("x.csv", "lonely.txt", ".hidden"):
        (pictures / name).write_text("x")
    _, again, err = call("score", pictures, "--reward", "sharpness")
    assert again == out
    skipped = "3 of 7 skipped, no picture, no sound and no text of one: lonely.txt, more/, x.csv"
    assert err == f"{SAID}note: {pictures}: {skipped}\n"
    for i in range(5):
        (pictures / f"{i}.md").write_text("x")
    assert ": 0.md, 1.md, 2.md, 3.md, 4.md, …\n" in call("score", pictures, "--reward", "sharpness")[2]
    rows = pictures.parent / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "output": "pics/c.gif"}))
    assert lines_of(call("score", rows, "--reward", "sharpness")[1])[0]["output"] == "pics/c.gif"
    rows.write_text(json.dumps({"prompt": "a", "output": "a text"}))
    _, out, _ = call("score", rows, "--reward", "length", "--set", "high=5")
    assert (lines_of(out)[0]["prompt"], lines_of(out)[0]["output"]) == ("a", "a text")


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


SHARP = ("--reward", "sharpness")


def test_a_file_that_cannot_be_read_is_the_fault_of_its_row(call: Any, pictures: Path) -> None:
    (pictures / "c.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    (pictures / "d.heic").write_bytes(b"no picture")
    (pictures / "e.webp").write_bytes(b"")
    out = pictures.parent / "scores.jsonl"
    code, _, err = call("score", pictures, *SHARP, "--out", out)
    lines = lines_of(out.read_text())
    assert [line["status"] for line in lines] == ["ok", "ok", "error", "error", "error"] and code == 1
    assert [line["value"] is None for line in lines] == [False, False, True, True, True]
    assert "c.png: Pillow" in lines[2]["info"] and "does not recognise" in lines[3]["info"]
    assert "e.webp: the file is empty" in lines[4]["info"]
    assert (
        err.startswith(f"{SAID}note: 3 of 5 rows could not be scored (error or timeout); the first, 3: ")
        and "c.png" in err
    )


def test_of_a_set_what_cannot_be_read_is_left_out_and_said(call: Any, pictures: Path) -> None:
    for name in "cdefg":
        write_image(torch.rand(3, 64, 64), pictures / f"{name}.png")
    words = ("--reward", "vendi", "--set", "encoder=assets/scenes_clip")
    whole = lines_of(call("score", pictures, *words)[1])[0]
    (pictures / "b2.png").write_bytes(b"junk")
    code, out, err = call("score", pictures, *words)
    (line,) = lines_of(out)
    assert (
        code == 1
        and line["n"] == whole["n"] == 7
        and line["failed"] == 1
        and line["value"] == pytest.approx(whole["value"], abs=1e-5)
    )
    assert line["credit"][2] is None and line["info"].startswith("1 of 8 outputs have no embedding; the first: ")
    assert "note: 1 of 8 rows are not in the set: 1 of 8 outputs have no embedding; the first: " in err
    for file in pictures.iterdir():
        file.write_bytes(b"")
    code, _, err = call("score", pictures, *words)
    assert code == 2 and "none of the 8 outputs can be read; the first: " in err


@pytest.mark.parametrize("suffix", [".tiff", ".bmp", ".gif", ".avif", ".opus", ".m4a", ".heic", ".jp2"])
def test_the_name_of_a_file_is_never_scored_as_a_text(call: Any, tmp_path: Path, suffix: str) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": "a", "output": f"x{suffix}"}
    rows.write_text(json.dumps(row))
    code, _, err = call("score", rows, "--reward", "length", "--set", "high=5")
    assert code == 2 and "this reward judges text; the outputs are " in err and 'says "kind": "text"' in err
    rows.write_text(json.dumps({**row, "kind": "text"}))
    assert call("score", rows, "--reward", "length", "--set", "high=5")[0] == 0
    rows.write_text(json.dumps({**row, "kind": "words"}))
    code, _, err = call("score", rows, "--reward", "length", "--set", "high=5")
    assert code == 2 and "rows.jsonl:1: field 'kind' is 'words'; there is text, image, audio." in err


def test_outputs_are_what_their_files_hold(call: Any, pictures: Path) -> None:
    from tests.media import odd

    rows = pictures.parent / "rows.jsonl"
    (pictures.parent / "yes").write_bytes(odd.picture(kind="TIFF", size=(32, 32)))
    (pictures.parent / "notes").write_text("words")
    names = ["yes", "pics/a.png", "notes", "/dev/zero", "a\0b.png", "\udc80.png", "gone.png"]
    rows.write_text("\n".join(json.dumps({"prompt": "a", "output": name}) for name in names[:2]))
    assert [line["status"] for line in lines_of(call("score", rows, *SHARP)[1])] == ["ok", "ok"]
    rows.write_text(
        "\n".join(json.dumps({"prompt": "a", "output": n, "kind": "image"}) for n in names if n[0] != "\udc80")
    )
    code, out, _ = call("score", rows, *SHARP)
    assert code == 1 and [line["status"] for line in lines_of(out)] == ["ok", "ok", *["error"] * 4]
    rows.write_text("\n".join(json.dumps({"prompt": "a", "output": name}) for name in ("pics/a.png", "notes")))
    code, out, _ = call("score", rows, *SHARP)
    assert code == 1 and "names " in lines_of(out)[1]["info"] and "notes, no picture and no sound" in out
    rows.write_text(json.dumps({"prompt": "a", "output": "notes"}))
    assert "none of the 1 outputs is a text, a picture or a sound" in call("score", rows, "--reward", "length")[2]


def test_lines_that_hold_no_row_are_all_named(call: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "\n".join(['{"a": ' + "[" * 9_000, "[]", '{"prompt": "\\ud800", "output": ""}', "{'a'}", "7" * 5000])
    )
    code, _, err = call("score", rows, "--reward", "length")
    assert code == 2 and "Traceback" not in err
    assert "rows.jsonl:1: not valid JSON" in err and "rows.jsonl:2: a row is an object, found list." in err
    assert (
        "rows.jsonl:3: field 'prompt' holds '\\ud800', half of a character" in err and "rows.jsonl:5: not valid" in err
    )
