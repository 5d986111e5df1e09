"""What people look at: the same prompts and noise before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmalign.core.errors import MmalignError
from mmalign.core.types import Prompt, Status
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.boxes import Draw, drawing
from mmalign.evaluation.report.detail import Detail
from mmalign.evaluation.report.differences import Piece, word_differences
from mmalign.evaluation.report.parts import row_parts
from mmalign.evaluation.report.words import Words
from mmalign.evaluation.run_record import RunRecord
from mmalign.evaluation.table import number_text
from mmalign.media.audio import read_samples
from mmalign.media.image import data_uri, enlarged, to_pil
from mmalign.media.player import player_uri
from mmalign.media.spectrogram import spectrogram

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Card", "Clip", "RowPart", "Side", "cards", "clip_of", "cut", "facts"]

SHOWN_PIXELS = 256
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
    pieces: list[Piece] = field(default_factory=list)  # the text, by what the other side has of it
    scores: list[Score] = field(default_factory=list)


class RowPart(NamedTuple):
    """A part of a row's score, as text and in per cent of [0, 1], before and after; None where one has none."""

    name: str
    texts: list[str]
    bars: list[float | None]


@dataclass
class Card:
    """One prompt with its outputs; `picture` is the one it is about."""

    prompt: str
    sides: list[Side]
    picture: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)  # what the row says besides: references, the answer
    parts: list[tuple[str, list[RowPart]]] = field(default_factory=list)  # by reward, what its score is made of


@dataclass
class Clip:
    """A sound to play and its spectrogram."""

    uri: str
    picture: str


def cards(record: RunRecord, detail: Detail | None = None, words: Words | None = None) -> list[Card]:
    """Return the first kept prompts, in file order and not chosen by score, with what each policy made of them."""
    detail, words = detail or Detail(), words or Words()
    both = ((words.first, record.before), (words.second, record.after))
    sides = [(label, e) for label, e in both if e is not None]
    if not sides:
        return []
    paired = len(sides) == 2 and [p.question for p in sides[0][1].prompts] == [p.question for p in sides[1][1].prompts]
    shown = sides if paired else sides[-1:]
    kept = min(e.kept for _, e in shown)
    if kept > detail.cards:
        detail.say(f"{detail.cards} of {kept} kept outputs")
    return [_card([(label, e) for label, e in shown], i, record, detail) for i in range(min(detail.cards, kept))]


def _card(shown: list[tuple[str, Evaluation]], i: int, record: RunRecord, detail: Detail) -> Card:
    first = shown[0][1]
    draw = drawing(record.run)
    sides = [_side(label, e, i, record, first if e is not first else None, detail) for label, e in shown]
    if draw is not None:
        for side, (_, evaluation) in zip(sides, shown, strict=True):
            side.picture = side.picture or _boxes(evaluation, i, draw, detail)
    if len(sides) == 2 and sides[0].kind == "text":
        sides[0].pieces, sides[1].pieces = word_differences(sides[0].text, sides[1].text)
    about = "" if draw or i not in first.prompt_pictures else _picture(first.prompt_pictures[i], detail)
    prompt = cut(first.prompts[i].shown, detail)
    return Card(prompt, sides, about, facts(first.prompts[i]), _parts([e for _, e in shown], i))


def _parts(evaluations: list[Evaluation], i: int) -> list[tuple[str, list[RowPart]]]:
    """The parts of a row's scores, of each evaluation beside one another."""
    each = [{name: dict(parts) for name, parts in row_parts(e, i).items()} for e in evaluations]
    tables = []
    for name in dict.fromkeys(name for one in each for name in one):
        known = [one.get(name, {}) for one in each]
        rows = []
        for part in dict.fromkeys(part for one in known for part in one):
            values = [one.get(part) for one in known]
            texts = ["–" if value is None else number_text(value) for value in values]
            rows.append(RowPart(part, texts, [100 * v if v is not None and 0 <= v <= 1 else None for v in values]))
        tables.append((name, rows))
    return tables


def cut(text: str, detail: Detail) -> str:
    """The first `detail.letters` of a text."""
    if len(text) <= detail.letters:
        return text
    detail.say(f"texts up to {detail.letters:,} characters")
    return f"{text[: detail.letters]}…"


def facts(prompt: Prompt) -> list[tuple[str, str]]:
    """What a text is held against, as far as it can be read: words and numbers of the row, and short lists of them."""
    shown = []
    for name, value in prompt.meta.items():
        each = value if isinstance(value, list) else [value]
        if each and all(isinstance(one, str | int | float) for one in each) and len(each) <= MOST_REFERENCES:
            text = " / ".join(map(str, each))
            shown.append((name, text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"))
    return shown


def _boxes(evaluation: Evaluation, i: int, draw: Draw, detail: Detail) -> str:
    if i not in evaluation.prompt_pictures or not isinstance(evaluation.outputs, list):
        return ""
    prompt = replace(evaluation.prompts[i], media={"image": evaluation.prompt_pictures[i]})
    return _picture(evaluation.prompt_pictures[i], detail, partial(draw, prompt, evaluation.outputs[i]))


def _side(
    label: str, evaluation: Evaluation, i: int, record: RunRecord, base: Evaluation | None, detail: Detail
) -> Side:
    scores = [_score(name, evaluation, i, record, base) for name in evaluation.scores]
    if evaluation.modality == "audio":
        clip = _kept_clip(evaluation.files[i], record, detail)
        return Side(label, "audio", uri=clip.uri, picture=clip.picture, scores=scores)
    output: Any = evaluation.outputs
    if isinstance(output, list):
        text = cut(output[i], detail)
        return Side(label, "text", text=text, pieces=[Piece("same", text)] if text else [], scores=scores)
    return Side(label, "image", uri=_picture(output[i], detail), scores=scores)


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


def _kept_clip(file: Path, record: RunRecord, detail: Detail) -> Clip:
    """The sound in a file; of one that cannot be read only a sentence, in what the run misses."""
    try:
        return clip_of(*read_samples(file), detail)
    except (MmalignError, OSError) as error:
        place = file.relative_to(record.path) if file.is_relative_to(record.path) else file
        reason = f"{place} could not be read: {error}"
        record.missing += [] if reason in record.missing else [reason]
        return Clip("", "")


def clip_of(samples: Float[np.ndarray, "C S"], rate: int, detail: Detail) -> Clip:
    """A sound, its first `detail.seconds` where that is not 0, and what it looks like."""
    if detail.seconds and samples.shape[1] > detail.seconds * rate:
        detail.say(f"the first {detail.seconds:g} seconds of sounds")
        samples = samples[:, : int(detail.seconds * rate)]
    picture = data_uri(spectrogram(samples, rate), ".jpg") if samples.size else ""
    return Clip(player_uri(samples, rate), picture)


def _picture(image: Any, detail: Detail, draw: Callable[[Image], None] | None = None) -> str:
    """A data URI: small pictures enlarged so that browsers do not blur them, large ones as JPEG."""
    picture = to_pil(image)
    least = min(SHOWN_PIXELS, detail.pixels)
    suffix = ".jpg" if max(picture.size) >= least else ".png"
    if max(picture.size) > detail.pixels:
        detail.say(f"pictures at {detail.pixels} of {max(picture.size)} pixels")
    picture = enlarged(picture, least)
    picture.thumbnail((detail.pixels, detail.pixels))
    if draw is not None:
        draw(picture)
    return data_uri(picture, suffix)
