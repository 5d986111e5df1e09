"""The pictures of the README: what a run's model made before and after training, of the first held-out prompts.

python -m tests.docs.before_after RUN docs/images/pictures            # writes pictures.png and pictures.json
python -m tests.docs.before_after RUN docs/images/music --count 3

Nothing is chosen by score: the prompts are those that come first, the noise is the same on both sides.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.differences import Piece, word_differences
from mmalign.evaluation.run_record import read_run
from mmalign.media.audio import read_samples
from mmalign.media.image import to_pil
from mmalign.media.spectrogram import spectrogram

INK, MUTED, PAPER, LINE, NEW, GONE = "#1b1d21", "#626973", "#ffffff", "#d5d8de", "#0f7a52", "#bd2f26"
LABELS, GAP, SIZE = 62, 12, 13  # width of the column of words, between columns, of letters
LARGEST = 60_000  # bytes of a picture
FONT = ImageFont.load_default(SIZE)


@dataclass
class Column:
    """One prompt: what was asked (a picture, or words), and what was made of it before and after."""

    asked: Image.Image | str
    made: tuple[Any, Any]


def columns_of(before: Evaluation, after: Evaluation, count: int, width: int) -> list[Column]:
    """The first `count` prompts; pictures and spectrograms are `width` wide, texts are in pieces."""
    made = []
    for i in range(count):
        asked: Image.Image | str = before.prompts[i].shown
        if i in before.prompt_pictures:
            asked = _wide(to_pil(before.prompt_pictures[i]), width)
        made.append(Column(asked, _pair(before, after, i, width)))
    return made


def _pair(before: Evaluation, after: Evaluation, i: int, width: int) -> tuple[Any, Any]:
    if before.modality == "text":
        return word_differences(before.outputs[i], after.outputs[i])
    if before.modality == "audio":
        shown = [spectrogram(*read_samples(side.files[i]), height=72, width=width) for side in (before, after)]
        return to_pil(shown[0]), to_pil(shown[1])
    return _wide(to_pil(before.outputs[i]), width), _wide(to_pil(after.outputs[i]), width)


def _wide(picture: Image.Image, width: int) -> Image.Image:
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.NEAREST)


def wrapped(pieces: list[Piece], width: int) -> list[list[Piece]]:
    """Words in lines of at most `width` pixels, each with the kind of its piece."""
    lines: list[list[Piece]] = [[]]
    for word in (Piece(piece.kind, word) for piece in pieces for word in piece.text.split()):
        line = " ".join(each.text for each in [*lines[-1], word])
        if lines[-1] and FONT.getlength(line) > width:
            lines.append([])
        lines[-1].append(word)
    return lines


def sheet(columns: list[Column], width: int) -> Image.Image:
    """Columns beside one another: asked (if a picture), before, after, and the prompt's words below."""
    rows = (
        [[column.asked] for column in columns] if isinstance(columns[0].asked, Image.Image) else [[] for _ in columns]
    )
    cells = [[*asked, *column.made] for asked, column in zip(rows, columns, strict=True)]
    heads = ["picture", "before", "after"][-len(cells[0]) :]
    if isinstance(columns[0].asked, str):
        cells = [[*made, [Piece("same", str(c.asked))]] for made, c in zip(cells, columns, strict=True)]
        heads += ["asked"]
    heights = [max(_height(column[row], width) for column in cells) for row in range(len(heads))]
    total = (LABELS + len(columns) * (width + GAP), sum(heights) + GAP * (len(heads) + 1))
    page = Image.new("RGB", total, PAPER)
    pen, top = ImageDraw.Draw(page), GAP
    for row, head in enumerate(heads):
        pen.text((GAP, top + 2), head, fill=INK if head == "after" else MUTED, font=FONT)
        for at, column in enumerate(cells):
            _draw(page, pen, column[row], (LABELS + at * (width + GAP), top), width)
        top += heights[row] + GAP
    return page


def _height(cell: Any, width: int) -> int:
    return int(cell.height) if isinstance(cell, Image.Image) else (SIZE + 4) * len(wrapped(cell, width))


def _draw(page: Image.Image, pen: ImageDraw.ImageDraw, cell: Any, place: tuple[int, int], width: int) -> None:
    left, top = place
    if isinstance(cell, Image.Image):
        page.paste(cell, place)
        pen.rectangle((left - 1, top - 1, left + cell.width, top + cell.height), outline=LINE)
        return
    inks = {"same": INK, "new": NEW, "gone": GONE}
    for number, line in enumerate(wrapped(cell, width)):
        x = float(left)
        for word in line:
            pen.text((x, top + number * (SIZE + 4)), word.text, fill=inks[word.kind], font=FONT)
            x += FONT.getlength(f"{word.text} ")


def facts(run: Path, columns: list[Column], command: str) -> dict[str, Any]:
    """Where a picture comes from: the run's command, commit and numbers."""
    record = read_run(run)
    rows = [{"name": r.name, "role": r.role, "before": r.before, "after": r.after, "n": r.n} for r in record.summary]
    return {
        "command": record.environment["command"],
        "commit": record.environment["commit"],
        "seed": record.run["trainer"]["seed"],
        "seconds": record.seconds,
        "made_by": command,
        "shown": f"the first {len(columns)} held-out prompts in file order, before and after on the same noise",
        "rows": [{**row, "ci": list(each.ci)} for row, each in zip(rows, record.summary, strict=True)],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, help="a finished run directory")
    arguments.add_argument("out", type=Path, help="where, without the suffix")
    arguments.add_argument("--count", type=int, default=8, help="how many prompts")
    arguments.add_argument("--width", type=int, default=96, help="pixels of a column")
    given = arguments.parse_args()
    sides = [Evaluation.load(given.run / "evaluation" / name, sounds=False) for name in ("before", "after")]
    columns = columns_of(sides[0], sides[1], given.count, given.width)
    page = sheet(columns, given.width).quantize(96, dither=Image.Dither.NONE)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    file = given.out.with_suffix(".png")
    page.save(file, optimize=True)
    assert file.stat().st_size <= LARGEST, f"{file}: {file.stat().st_size} bytes; show fewer"
    command = f"python -m tests.docs.before_after RUN {given.out} --count {given.count} --width {given.width}"
    told = json.dumps(facts(given.run, columns, command), indent=1)
    given.out.with_suffix(".json").write_text(f"{told}\n", encoding="utf-8")
    print(file, file.stat().st_size, page.size)


if __name__ == "__main__":
    main()
