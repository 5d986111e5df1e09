"""What people look at: the same prompts and noise before and after, and samples along the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mmalign.core.errors import MmalignError
from mmalign.core.types import Prompt, Status
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.boxes import Draw, drawing
from mmalign.evaluation.run_record import RunRecord
from mmalign.evaluation.table import number_text
from mmalign.media.audio import read_samples
from mmalign.media.image import data_uri, enlarged, read_pixels, to_pil
from mmalign.media.player import player_uri
from mmalign.media.spectrogram import spectrogram

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Card", "Sheet", "Side", "cards", "facts", "sheets"]

MOST_CARDS, MOST_SHEETS, MOST_CLIPS = 12, 5, 6
SHOWN_PIXELS, LARGEST_PIXELS = 256, 512
MOST_REFERENCES, MOST_LETTERS = 8, 400


@dataclass
class Score:
    """One reward's verdict on one output; `tick` for a verifier: "yes", "no" or "" (it is a number)."""

    name: str
    text: str
    tick: str = ""
    trend: str = ""


@dataclass
class Side:
    """One output with its scores; `kind` says which of `uri` and `text` to show.

    `picture` is what a sound looks like, or what the prompt is about with the boxes that a text names.
    """

    label: str
    kind: str
    uri: str = ""
    picture: str = ""
    text: str = ""
    scores: list[Score] = field(default_factory=list)


@dataclass
class Card:
    """One prompt with its outputs; `picture` is the one it is about."""

    prompt: str
    sides: list[Side]
    picture: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)  # what the row says besides: references, the answer


@dataclass
class Clip:
    """A sound to play and its spectrogram."""

    uri: str
    picture: str


@dataclass
class Sheet:
    """Samples of one step: a picture, or clips."""

    step: int
    picture: str = ""
    clips: list[Clip] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


def cards(record: RunRecord) -> list[Card]:
    """Return the first kept prompts, in file order and not chosen by score, with what each policy made of them."""
    sides = [(label, e) for label, e in (("before", record.before), ("after", record.after)) if e is not None]
    if not sides:
        return []
    count = min(MOST_CARDS, *(_kept(e) for _, e in sides))
    draw = drawing(record.run)
    paired = len(sides) == 2 and [p.question for p in sides[0][1].prompts] == [p.question for p in sides[1][1].prompts]
    shown = sides if paired else sides[-1:]
    return [
        Card(
            shown[0][1].prompts[i].shown,
            [_side(label, e, i, record, shown[0][1] if e is not shown[0][1] else None, draw) for label, e in shown],
            "" if draw or i not in shown[0][1].prompt_pictures else _picture(shown[0][1].prompt_pictures[i]),
            facts(shown[0][1].prompts[i]),
        )
        for i in range(count)
    ]


def facts(prompt: Prompt) -> list[tuple[str, str]]:
    """What a text is held against, as far as it can be read: words and numbers of the row, and short lists of them."""
    shown = []
    for name, value in prompt.meta.items():
        each = value if isinstance(value, list) else [value]
        if each and all(isinstance(one, str | int | float) for one in each) and len(each) <= MOST_REFERENCES:
            text = " / ".join(map(str, each))
            shown.append((name, text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"))
    return shown


def _boxes(evaluation: Evaluation, i: int, draw: Draw | None) -> str:
    if draw is None or i not in evaluation.prompt_pictures:
        return ""
    prompt = replace(evaluation.prompts[i], media={"image": evaluation.prompt_pictures[i]})
    return _picture(evaluation.prompt_pictures[i], partial(draw, prompt, evaluation.outputs[i]))


def _kept(evaluation: Evaluation) -> int:
    return len(evaluation.files if evaluation.modality == "audio" else evaluation.outputs)


def _side(
    label: str, evaluation: Evaluation, i: int, record: RunRecord, base: Evaluation | None, draw: Draw | None
) -> Side:
    scores = [_score(name, evaluation, i, record, base) for name in evaluation.scores]
    if evaluation.modality == "audio":
        clip = _kept_clip(evaluation.files[i], record)
        return Side(label, "audio", uri=clip.uri, picture=clip.picture, scores=scores)
    output: Any = evaluation.outputs
    if isinstance(output, list):
        return Side(label, "text", picture=_boxes(evaluation, i, draw), text=output[i], scores=scores)
    return Side(label, "image", uri=_picture(output[i]), scores=scores)


def _score(name: str, evaluation: Evaluation, i: int, record: RunRecord, base: Evaluation | None) -> Score:
    scores = evaluation.scores[name]
    if not bool(scores.valid[i]):
        return Score(name, Status(int(scores.status[i])).label.replace("_", " "))
    value = float(scores.value[i])
    ticks = record.roles.get(name) == "verifier" and bool(
        ((scores.value == 0) | (scores.value == 1))[scores.valid].all()
    )
    trend = ""
    if base is not None and name in base.scores and bool(base.scores[name].valid[i]):
        start = float(base.scores[name].value[i])
        if number_text(value) != number_text(
            start
        ):  # an arrow between two numbers that read the same would say nothing
            trend = "up" if value > start else "down"
    return Score(name, number_text(value), ("yes" if value == 1 else "no") if ticks else "", trend)


def _kept_clip(file: Path, record: RunRecord) -> Clip:
    """The sound in a file; of one that cannot be read only a sentence, in what the run misses."""
    try:
        return _clip(*read_samples(file))
    except (MmalignError, OSError) as error:
        record.missing.append(f"{file.relative_to(record.path)} could not be read: {error}")
        return Clip("", "")


def _clip(samples: Float[np.ndarray, "C S"], rate: int) -> Clip:
    picture = data_uri(spectrogram(samples, rate), ".jpg") if samples.size else ""
    return Clip(player_uri(samples, rate), picture)


def _picture(image: Any, draw: Callable[[Image], None] | None = None) -> str:
    """A data URI: small pictures enlarged so that browsers do not blur them, large ones as JPEG."""
    picture = to_pil(image)
    suffix = ".jpg" if max(picture.size) >= SHOWN_PIXELS else ".png"
    picture = enlarged(picture, SHOWN_PIXELS)
    picture.thumbnail((LARGEST_PIXELS, LARGEST_PIXELS))
    if draw is not None:
        draw(picture)
    return data_uri(picture, suffix)


def sheets(record: RunRecord) -> list[Sheet]:
    """Samples of at most five steps, evenly chosen, the last always among them; unreadable files are noted."""
    chosen = record.samples
    if len(chosen) > MOST_SHEETS:
        chosen = [chosen[round(i * (len(chosen) - 1) / (MOST_SHEETS - 1))] for i in range(MOST_SHEETS)]
    return [sheet for folder in chosen if (sheet := _sheet(folder, record.missing)) is not None]


def _sheet(folder: Path, missing: list[str]) -> Sheet | None:
    sheet = Sheet(int(folder.name.removeprefix("step_")) if folder.name.removeprefix("step_").isdigit() else 0)
    try:
        for picture in sorted(folder.glob("contact_sheet.*")):
            sheet.picture = data_uri(read_pixels(picture), ".jpg", longest=1400)
        sheet.clips = [_clip(*read_samples(file)) for file in sorted(folder.glob("*.wav"))[:MOST_CLIPS]]
        if not sheet.clips and (folder / "rows.parquet").exists():
            sheet.texts = _scores(folder / "rows.parquet") if sheet.picture else _texts(folder / "rows.parquet")
    except (MmalignError, OSError, ValueError) as error:
        missing.append(f"samples/{folder.name} could not be read: {error}")
        return None
    return sheet if sheet.picture or sheet.clips or sheet.texts else None


def _texts(path: Path) -> list[tuple[str, str]]:
    table = _columns(path, ["prompt", "output"])
    return list(zip(table["prompt"][:8], table["output"][:8], strict=True))


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
