"""Samples along the way: a sheet of pictures, clips or texts of a few steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.core.errors import MmalignError
from mmalign.evaluation.report.detail import Detail
from mmalign.evaluation.report.gallery import Clip, clip_of, cut
from mmalign.evaluation.run_record import RunRecord
from mmalign.evaluation.table import number_text
from mmalign.media.audio import read_samples
from mmalign.media.image import data_uri, read_pixels

__all__ = ["Sheet", "sheets"]

MOST_CLIPS, MOST_TEXTS = 6, 8


@dataclass
class Sheet:
    """Samples of one step: a picture, or clips."""

    step: int
    picture: str = ""
    clips: list[Clip] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


def sheets(record: RunRecord, detail: Detail | None = None) -> list[Sheet]:
    """Samples of at most `detail.sheets` steps, evenly chosen, the last among them; unreadable files are noted."""
    detail = detail or Detail()
    chosen = record.samples
    if len(chosen) > detail.sheets:
        detail.say(f"samples of {detail.sheets} of {len(chosen)} steps")
        apart = (len(chosen) - 1) / max(1, detail.sheets - 1)
        chosen = [chosen[len(chosen) - 1 - round(i * apart)] for i in reversed(range(detail.sheets))]
    return [sheet for folder in chosen if (sheet := _sheet(folder, record.missing, detail)) is not None]


def _sheet(folder: Path, missing: list[str], detail: Detail) -> Sheet | None:
    sheet = Sheet(int(folder.name.removeprefix("step_")) if folder.name.removeprefix("step_").isdigit() else 0)
    try:
        for picture in sorted(folder.glob("contact_sheet.*")):
            pixels = read_pixels(picture)
            if max(pixels.shape[1:]) > detail.sheet_pixels:
                detail.say(f"sheets of samples at {detail.sheet_pixels} pixels")
            sheet.picture = data_uri(pixels, ".jpg", longest=detail.sheet_pixels)
        files = sorted(folder.glob("*.wav"))
        if len(files) > MOST_CLIPS:
            detail.say(f"the first {MOST_CLIPS} sounds of each step")
        sheet.clips = [clip_of(*read_samples(file), detail) for file in files[:MOST_CLIPS]]
        if not sheet.clips and (folder / "rows.parquet").exists():
            sheet.texts = _scores(folder / "rows.parquet") if sheet.picture else _texts(folder / "rows.parquet", detail)
    except (MmalignError, OSError, ValueError) as error:
        reason = f"samples/{folder.name} could not be read: {error}"
        missing += [] if reason in missing else [reason]
        return None
    return sheet if sheet.picture or sheet.clips or sheet.texts else None


def _texts(path: Path, detail: Detail) -> list[tuple[str, str]]:
    table = _columns(path, ["prompt", "output"])
    shown = ([cut(text, detail) for text in table[name][:MOST_TEXTS]] for name in ("prompt", "output"))
    return list(zip(*shown, strict=True))


def _columns(path: Path, names: list[str] | None = None) -> dict[str, list[Any]]:
    """The columns of one file; `read_table` reads data sets of many, for which it imports pandas."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read(names).to_pydict()


def _scores(path: Path) -> list[tuple[str, str]]:
    """The prompt and the scores of every picture of a sheet, as text that can be read at any size."""
    table = _columns(path)
    names = [name for name in table if f"{name}/status" in table]
    return [
        (
            prompt,
            ", ".join(
                f"{n} {number_text(table[n][i]) if table[n][i] is not None else table[f'{n}/status'][i]}" for n in names
            ),
        )
        for i, prompt in enumerate(table["prompt"])
    ]
