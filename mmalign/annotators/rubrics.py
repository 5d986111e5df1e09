"""Criteria mined from pairs, and kept where judging by them prefers what was preferred."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mmalign.annotators._rows import Columns, Row, Skipped, built, each_row, scores_by_reward
from mmalign.core.options import Count, NotNegative, refuse, requires
from mmalign.core.rng import stream_seed
from mmalign.core.types import Prompt
from mmalign.rewards.models.reader import Make, Reader

__all__ = ["Rubrics"]

Criterion = dict[str, Any]
_LINE = re.compile(r"^[\s\-*•\d.)]*(?:(hard|soft)(?:\s+rule)?\s*:)?\s*(.+?)\s*$", re.IGNORECASE)
_INSTRUCTION = (
    "Request:\n{prompt}\n\nThe better answer:\n{chosen}\n\nThe worse answer:\n{rejected}\n\n"
    "Write the criteria by which the first is better, one a line: 'hard:' and what the request asks for in so many "
    "words, 'soft:' and what makes an answer to it good."
)


@dataclass
class Rubrics:
    """`criteria` of each pair, as the reward `criteria` reads them; rows whose label they do not reproduce are skipped.

    OpenRubrics (arXiv 2510.07743): a model writes hard rules and principles from a request, the preferred and the
    rejected answer, and a rubric stays only if judging by it prefers the preferred one. `criteria_gap` is by how much.

    Args:
        source: of criteria: `generator` writes them; `scenes` are the embedded world's own, what one caption of the
            pair says and the other does not; `column` are there already.
        judge: the reward that reads `criteria`, {name: criteria, checkpoint: …}; without one all rows stay.
        keep: `rubric`: all criteria of a row stay or none; `criterion`: each by itself.
        margin: how much more the preferred output must score.
        generator: a run directory, a language model's folder, or {adapter: …, policy: …}.
        instruction: what it is asked, with {prompt}, {chosen} and {rejected}; it answers in lines, "hard: …" or
            "soft: …".
        column: with criteria, where they are written and where they are there already.
        seed: of the generator's draws.
    """

    source: Literal["generator", "scenes", "column"] = "generator"
    judge: dict[str, Any] = field(default_factory=dict)
    keep: Literal["rubric", "criterion"] = "rubric"
    margin: NotNegative = 0.0
    generator: str | dict[str, Any] = ""
    instruction: str = _INSTRUCTION
    column: str = "criteria"
    seed: Count = 0
    make: Make | None = field(default=None, repr=False)

    reader: Reader | None = field(default=None, init=False, repr=False, compare=False)
    reward: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        writes = self.source == "generator"
        places = all(f"{{{name}}}" in self.instruction for name in ("prompt", "chosen", "rejected"))
        refuse(
            requires(writes, bool(self.generator), "generator: name the model that writes criteria."),
            requires(bool(self.generator), writes, "generator: is asked only with source: generator."),
            requires(writes, places, "instruction: must name {prompt}, {chosen} and {rejected}."),
        )
        self.reader = Reader(self.make, self.generator, "generator") if writes else None
        self.reward = built(self.make, [self.judge], "judge")[0] if self.judge else None
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their criteria."""
        mined = each_row(rows, self._mined)
        if self.reward is None:
            pairs = zip(rows, mined, strict=True)
            return [each if isinstance(each, Skipped) else [self._with(row, each)] for row, each in pairs]
        tried = [
            (at, part)
            for at, own in enumerate(mined)
            if not isinstance(own, Skipped)
            for part in ([own] if self.keep == "rubric" else [[each] for each in own])
        ]
        gaps = self._gaps([(rows[at], part) for at, part in tried])
        kept: dict[int, list[tuple[list[Criterion], float]]] = {}
        for (at, part), gap in zip(tried, gaps, strict=True):
            if gap > self.margin:  # NaN, where a side could not be judged, is not
                kept.setdefault(at, []).append((part, gap))
        return [
            each if isinstance(each, Skipped) else self._judged(row, kept.get(at, []))
            for at, (row, each) in enumerate(zip(rows, mined, strict=True))
        ]

    def _judged(self, row: Row, kept: Sequence[tuple[list[Criterion], float]]) -> list[Columns] | Skipped:
        if not kept:
            return Skipped("judging by its criteria does not prefer what was preferred")
        criteria = [criterion for part, _ in kept for criterion in part]
        return [self._with(row, criteria) | {"criteria_gap": round(min(gap for _, gap in kept), 6)}]

    def _with(self, row: Row, criteria: Any) -> Columns:
        return {**row.columns, self.column: criteria}

    def _gaps(self, tried: Sequence[tuple[Row, list[Criterion]]]) -> list[float]:
        """By how much the preferred output of each row scores more, judged by the criteria beside it."""
        if not tried:
            return []
        prompts = [
            Prompt(row.prompt.text, row.prompt.media, {**row.prompt.meta, self.column: part}) for row, part in tried
        ]
        sides = [row.text(name) for name in ("chosen", "rejected") for row, _ in tried]
        value = scores_by_reward(self.reward, [*prompts, *prompts], sides).value
        gaps: list[float] = (value[: len(tried)] - value[len(tried) :]).tolist()
        return gaps

    def _mined(self, row: Row) -> Any:
        """The criteria of one row, before any is tried."""
        better, worse = row.text("chosen"), row.text("rejected")
        if self.source == "column":
            criteria = row.columns.get(self.column)
            mined = criteria if isinstance(criteria, list) else [criteria] if criteria else []
        elif self.reader is None:
            mined = _of_scenes(better, worse)
        else:
            mined = self._written(self.reader, row, better, worse)
        if not mined:
            raise Skipped("no criteria came")
        return mined

    def _written(self, reader: Reader, row: Row, better: str, worse: str) -> list[Criterion]:
        text = self.instruction
        for name, value in (("{chosen}", better), ("{rejected}", worse), ("{prompt}", row.prompt.text)):
            text = text.replace(name, value)
        policy: Any = reader.loaded
        seed = stream_seed(self.seed, "rubrics", row.prompt.question, better, worse)
        drawn = policy.sample([Prompt(text, row.prompt.media)], torch.Generator(), seeds=torch.tensor([seed]))
        lines = [_LINE.match(line) for line in drawn.output[0].splitlines() if line.strip()]
        return [{"text": m[2], "kind": (m[1] or "soft").lower()} for m in lines if m is not None]


def _of_scenes(better: str, worse: str) -> list[Criterion]:
    """What the better caption says and the worse does not, and what the worse one says alone; hard, both of them."""
    from mmalign.miniworld.language import CaptionError, parse
    from mmalign.miniworld.questions import questions_of

    try:
        sides = [questions_of(parse(text)) for text in (better, worse)]
    except CaptionError as error:
        raise Skipped("a side is no caption of the scenes") from error
    answers = [{question.text for question in side} for side in sides]
    return [
        {"text": question.text, "kind": "hard", "positive": number == 0}
        for number, side in enumerate(sides)
        for question in side
        if question.text not in answers[1 - number]
    ]
