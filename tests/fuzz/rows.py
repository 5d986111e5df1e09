"""Rows and media as accidents make them, through every reader: used or refused in a sentence, never a traceback.

python -m tests.fuzz.rows --cases 2000
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmalign.core.errors import MmalignError
from mmalign.data.lazy_media import require_files
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.run.rows import FIELDS, left_out, read_output_rows
from tests.media import odd

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        7,
        1.5,
        float("nan"),
        float("inf"),
        10**400,
        "",
        " ",
        "\n",
        "a\0b",
        "\ud800",
        "é",
        "<image>",
    ),
    *("x" * 5_000, [], {}, [1], ["a"], {"bytes": None}, {"path": None}, {"bytes": b"x", "path": "x.png"}, b"", b"junk"),
    *("a.png", "b.wav", "none.png", "/dev/zero", "/dev/null", ".", "..", "~", "a\0.png", "\udc80.png", "pipe.wav"),
    *(
        "folder",
        "x.m4a",
        "x.heic",
        "notes",
        "https://example.com/a.png",
        "file:///etc/hostname",
        [[["a"]]],
        {"a": {"b": []}},
    ),
]
COLUMNS = [
    "prompt",
    "chosen",
    "rejected",
    "output",
    "image",
    "audio",
    "label",
    "meta",
    "group",
    "kind",
    "target",
    "",
    "\ud83d",
]
MEDIA: list[Callable[[], bytes]] = [
    *(lambda k=k: odd.sound(k, 0.2) for k in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "VOC")),
    *(lambda s=s: odd.sound("WAV", 0.1, subtype=s) for s in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "PCM_U8", "ULAW")),
    *(lambda c=c: odd.sound("WAV", 0.1, channels=c) for c in (2, 6, 64)),
    *(
        lambda k=k: odd.picture(kind=k, size=(9, 7))
        for k in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
    ),
    *(lambda m=m: odd.picture(m) for m in ("1", "L", "LA", "P", "RGBA", "I;16")),
    *(lambda m=m: odd.picture(m, "TIFF") for m in ("F", "I", "CMYK", "LAB", "YCbCr")),
    lambda: odd.picture("CMYK", "JPEG"),
    lambda: odd.picture(size=(1, 1)),
    lambda: odd.png_of_size(2**31 - 1, 2**31 - 1),
    lambda: odd.png_of_size(0, 4),
    lambda: odd.flac_of_samples(2**36 - 1),
    lambda: odd.wav_of_size(2**32 - 2),
    lambda: b"",
    lambda: b"\0" * 64,
    lambda: b"RIFF\xff\xff\xff\xffWAVEfmt ",
    lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
]


def case(seed: int, folder: Path) -> tuple[str, str]:
    """(reader, "used" or the sentence of its refusal) for the file that `seed` makes; any other error is raised."""
    rng = random.Random(seed)
    make, name = rng.choice(READERS), f"case{seed}"
    try:
        make(rng, folder / name)
    except MmalignError as error:
        assert str(error).strip()
        return make.__name__, str(error)
    return make.__name__, "used"


def _row(rng: random.Random, base: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    row = dict(base)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
        column = rng.choice([*row, *columns])
        if rng.random() < 0.2:
            row.pop(column, None)
        else:
            row[column] = rng.choice(VALUES)
    return row


FORMATS = (".jsonl", ".jsonl", ".csv", ".txt", ".parquet")


def _written(
    rng: random.Random,
    path: Path,
    base: dict[str, Any],
    columns: Sequence[str] = COLUMNS,
    formats: Sequence[str] = FORMATS,
) -> str:
    rows = [_row(rng, base, columns) for _ in range(rng.choice((0, 1, 1, 2, 2, 4)))]
    suffix = rng.choice(formats)
    path = path.with_suffix(suffix)
    if suffix == ".parquet":
        _parquet(rows, path)
    elif suffix == ".csv":
        _csv(rows, path)
    else:
        lines = [json.dumps(row, default=repr) if suffix == ".jsonl" else str(row.get("prompt")) for row in rows]
        path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    _damaged(rng, path)
    return str(path)


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    except (pyarrow.ArrowException, OverflowError, UnicodeError, ValueError):  # rows that this format cannot hold
        path.write_bytes(b"PAR1")


def _csv(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([[row.get(name) for name in names] for row in rows])


def _damaged(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    how = rng.random()
    if how < 0.1 and data:
        del data[rng.randrange(len(data)) :]
    elif how < 0.2 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif how < 0.25:
        data += rng.choice((b"\n" + b"[" * 4_000, b'\n{"prompt": ' + b"9" * 5_000 + b"}", b"\xff\xfe", b"\0", b"\n[]"))
    path.write_bytes(data)


def prompts(rng: random.Random, path: Path) -> None:
    """A run's prompts, with or without media, and their halves."""
    media = rng.random() < 0.5
    base = {"prompt": "a cat", **({"image": "a.png", "audio": "b.wav"} if media else {})}
    options = {"image": "image", "audio": "audio"} if media else {}
    source = Prompts(_written(rng, path, base), held_out=rng.choice((0, 0, 0.5)), **options)  # type: ignore[arg-type]
    require_files(source.training_items(), source.held_out_items())


def preferences(rng: random.Random, path: Path) -> None:
    """Comparisons of texts, pictures or sounds, read to the last row."""
    one = rng.choice(("yes", "a.png", "b.wav"))
    base = {"prompt": "a cat", "chosen": one, "rejected": one, "label": rng.choice((1, 0, 0.5))}
    source = Preferences(_written(rng, path, base), outputs=rng.choice(("auto", "text", "image", "audio")))
    items = source.training_items()
    require_files(items)
    list(items.shapes())
    for item in items:
        assert item.chosen is not None


def scores(rng: random.Random, path: Path) -> None:
    """Rows to be scored, through a reward of pictures, sounds or texts."""
    from mmalign.rewards import Guarded, load_reward
    from mmalign.run.score import failed, score_rows

    reward, output = rng.choice((("sharpness", "a.png"), ("clipping", "b.wav"), ("repetition", "yes")))
    base = {"prompt": "a cat", "output": output}
    rows = read_output_rows(Path(_written(rng, path, base, list(FIELDS), [".jsonl"])))
    json.dumps(score_rows(rows, Guarded(reward, load_reward(reward), monitor=True), path.parent))
    failed([])


def media(rng: random.Random, path: Path) -> None:
    """A folder of one odd file under any name, scored."""
    from mmalign.rewards import Guarded, load_reward
    from mmalign.run.score import score_rows

    path.mkdir()
    data = bytearray(rng.choice(MEDIA)())
    for _ in range(rng.choice((0, 0, 1, 3))):
        if data and rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        elif data:
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
    name = rng.choice(("x.png", "x.wav", "x.mp3", "x.heic", "x", "x.txt", "x.tiff", "x y.flac", "ü.ogg"))
    (path / name).write_bytes(data)
    left_out(path)
    rows = read_output_rows(path)
    for reward in ("sharpness", "clipping"):
        try:
            lines = score_rows(rows, Guarded(reward, load_reward(reward), monitor=True), path)
        except MmalignError:
            continue
        assert len(lines) == 1 and lines[0]["status"] in ("ok", "error", "not_applicable", "parse_fail")


READERS = [prompts, preferences, scores, media]


def prepared(folder: Path) -> Path:
    """A folder with what rows may name: a picture, a sound, a text, a pipe and a folder."""
    import os

    (folder / "a.png").write_bytes(odd.picture(size=(32, 32)))
    (folder / "b.wav").write_bytes(odd.sound(seconds=0.5))
    (folder / "notes").write_text("words")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe.wav")
    return folder


def main() -> None:
    """Run the cases; exit 1 with their tracebacks if any raises what it should not."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cases", type=int, default=2_000)
    words.add_argument("--first", type=int, default=0)
    asked = words.parse_args()
    ends: Counter[tuple[str, str]] = Counter()
    logging.getLogger("mmalign").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name))
        for seed in range(asked.first, asked.first + asked.cases):
            try:
                reader, end = case(seed, folder)
            except Exception:
                print(f"seed {seed}:\n{traceback.format_exc(limit=-4)}")
                reader, end = "any", "TRACEBACK"
            ends[reader, end if end in ("used", "TRACEBACK") else "refused"] += 1
    for (reader, end), count in sorted(ends.items()):
        print(f"{reader:12} {end:10} {count}")
    raise SystemExit(bool(ends["any", "TRACEBACK"]))


if __name__ == "__main__":
    main()
