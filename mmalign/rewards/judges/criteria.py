"""Any criteria in words, of a run or of each prompt, hard and soft, asked of a model that sees, hears or reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError
from mmalign.core.options import Positive
from mmalign.core.tensor import Tensor
from mmalign.core.texts import unpacked
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status, device_of, modality_of
from mmalign.rewards.by_row import Known, media_of, read_rows
from mmalign.rewards.engine.contract import is_empty
from mmalign.rewards.functional import criteria_scores, group_means, yes_probability
from mmalign.rewards.judges._criteria import Criterion, read_criteria
from mmalign.rewards.models.asking import Answers, Asking, Make
from mmalign.rewards.models.asks_judge import Answering, AsksJudge, judge_of
from mmalign.rewards.models.template import Template, check_template, require_output_named
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded
from mmalign.rewards.points import make_source

__all__ = ["Criteria"]

_SHOWN = {"image": "picture", "audio": "sound", "text": "text"}
Asked = tuple[list[Prompt], list[Criterion]]


@dataclass
class Criteria(AsksJudge):
    """How far an output meets its criteria, P(each holds) from a judge, weighed and gated; in [0, 1].

    Rubrics of hard rules and principles (OpenRubrics 2510.07743), at the level of their score. The criteria of a row
    are those of the run, then those in its column, then its key points; a row without any is NOT_APPLICABLE. Each is a
    text, or {text, kind: soft or hard, weight, positive, name}, see `_criteria.Criterion`.

    A criterion that the judge does not answer is never a no: a soft one is left out, without a hard one that gates the
    row is an ERROR, as is a row without any answer. A text that is empty, or too long for the judge, is PARSE_FAIL.
    `parts`: every reading of `functional.criteria_scores`; `hard` and `soft`, the weighted mean of each kind; each
    criterion under its name; `unanswered`, a share; `mass`, the mean of P(yes) + P(no). The confidence is the mean of
    |2 P - 1|.

    Args:
        checkpoint: the judge: a folder or Hub id, of any image-text-to-text, audio-text or causal model
            of transformers.
        criteria: of every prompt of the run.
        column: of `Prompt.meta`: those of one prompt; where the run has some of its own, rows may lack it.
        points: key points as further soft criteria, {name: …, options} of `rewards.points`: {name: described} reads the
            24 of PromptEnhancer's sets, {name: scenes} asks about the clauses of a request of the miniworld.
        reading: which of `functional.criteria_scores` is the value.
        frame: what the judge reads, with {criterion}, {prompt}, {output} (of texts) and columns in braces, such as the
            principle or the context by which it should judge; by default one that fits the output.
        media: for texts, whether the judge is shown what the prompt is about: `auto`, if there is anything;
            `required`, a row without is NOT_APPLICABLE; `ignored`.
        temperature: divides the margin between yes and no; calibrates the judge.
        where: in a text the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read.
    """

    checkpoint: str
    criteria: list[Any] = field(default_factory=list)
    column: str = "criteria"
    points: dict[str, Any] = field(default_factory=dict)
    reading: Literal["gated", "smooth", "flat", "share"] = "gated"
    frame: str = ""
    media: Literal["auto", "required", "ignored"] = "auto"
    temperature: Positive = 1.0
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"image", "audio", "text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        if self.frame:
            check_template(self.frame, "frame", ["criterion"])
        try:
            self._own = read_criteria(self.criteria, "criteria")
        except ValueError as error:
            raise ConfigError(f"{error}.") from None
        names = [criterion.name for criterion in self._own if criterion.name]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"criteria: two are named '{twice[0]}'; give each a name of its own.")
        self._source = make_source(self.points) if self.points else None
        self.ask: Answering = judge_of(self.make, self.checkpoint, self.judge, "criteria")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        framed = [column for column in Template(self.frame).columns if column != "criterion"]
        source = () if self._source is None else self._source.needs
        own = () if self._own or self._source else (self.column,)
        return (*own, *source, *framed)

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where a row's criteria cannot be read."""
        self._criteria_of(prompt)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        made = modality_of(rollout.output)
        require_output_named(self.frame, "frame", made)
        by_row, read = read_rows(partial(self._questions, made, {}), rollout, self.range[0], self.needs)
        if not by_row:
            return read.to(device_of(rollout.output))
        answers = self.ask([question for questions, _ in by_row.values() for question in questions])
        judged = [(row, criterion) for row, (_, criteria) in by_row.items() for criterion in criteria]
        return self._scored(read, judged, answers, made == "text").to(device_of(rollout.output))

    def _criteria_of(self, prompt: Prompt) -> list[Criterion]:
        """Those of the run, of the row's column, and of its key points."""
        cell = prompt.meta.get(self.column)
        place = f"Prompt.meta['{self.column}']"
        criteria = [*self._own, *([] if cell is None else read_criteria(unpacked(cell, place), place))]
        points = (self._source(prompt) if self._source is not None else None) or []
        return criteria + [Criterion(p.question, "soft", p.weight, p.positive) for p in points]

    def _questions(self, made: Modality, known: Known, prompt: Prompt, output: Any) -> Asked | None:
        """The questions about one output, and what they are about."""
        answer = bounded(answer_of(output, self.where), LONG) if made == "text" else None
        if not (criteria := self._criteria_of(prompt)):
            return None
        media: Mapping[str, Any] = {made: output}
        if answer is not None:
            media = {} if self.media == "ignored" else media_of(prompt, known)
            if self.media == "required" and not media:
                return None
        return [Prompt(self._filled(made, prompt, c, answer), media) for c in criteria], criteria

    def _filled(self, made: Modality, prompt: Prompt, criterion: Criterion, answer: str | None) -> str:
        frame = Template(self.frame or _usual(made, criterion.question, not is_empty(prompt)))
        return frame.filled(Prompt(prompt.text, meta={**prompt.meta, "criterion": criterion.text}), answer)

    def _scored(self, read: Scores, judged: Sequence[tuple[int, Criterion]], answers: Answers, written: bool) -> Scores:
        """The scores of all rows, from how they were read and the answers about their criteria."""
        rows, row = len(read), torch.tensor([number for number, _ in judged])
        positive = torch.tensor([c.positive for _, c in judged])
        weight = torch.tensor([c.weight for _, c in judged])
        hard = torch.tensor([c.kind == "hard" for _, c in judged])
        yes = yes_probability(answers.margin, self.temperature)
        value = torch.where(positive, yes, 1 - yes)

        def mean(of: Float[Tensor, " N"], weight: Float[Tensor, " N"]) -> Float[Tensor, " B"]:
            return group_means(of, row, torch.zeros_like(row), weight, (rows, 1))[:, 0]

        readings = criteria_scores(value, row, hard, weight, rows)
        status = read.status.clone()
        if written:
            status[row[torch.tensor(answers.too_long)]] = int(Status.PARSE_FAIL)
        chosen = readings[self.reading]
        status = torch.where(chosen.isnan() & (status == Status.OK), int(Status.ERROR), status).to(torch.int8)
        floor = torch.where(status == Status.PARSE_FAIL, self.range[0], float("nan"))
        info = list(read.info or [""] * rows)
        for number, why in zip(row.tolist(), answers.why, strict=True):
            info[number] = info[number] or why
        kinds = {"hard": mean(value, weight * hard), "soft": mean(value, weight * ~hard)}
        return Scores(
            value=torch.where(status == Status.OK, chosen, floor),
            status=status,
            confidence=mean((2 * yes - 1).abs(), torch.ones_like(weight)).nan_to_num(nan=0.0),
            parts=readings
            | kinds
            | _by_name(judged, value, rows)
            | {"unanswered": mean(value.isnan().float(), torch.ones_like(weight))}
            | {"mass": mean(answers.mass, torch.ones_like(weight))},
            info=info if any(info) else None,
        )


def _usual(made: Modality, question: bool, requested: bool) -> str:
    """What the judge reads, for outputs of a kind, a criterion that is a question or a sentence, and any request."""
    request = "Request:\n{prompt}\n\n" if requested and (made == "text" or not question) else ""
    output = "Text:\n{output}\n\n" if made == "text" else ""
    if question:
        return f"{request}{output}{{criterion}} Answer yes or no."
    return f"{request}{output}Criterion: {{criterion}}\n\nDoes the {_SHOWN[made]} meet it? Answer yes or no."


def _by_name(judged: Sequence[tuple[int, Criterion]], value: Tensor, rows: int) -> dict[str, Float[Tensor, " B"]]:
    """P of each criterion that has a name, NaN for rows without it."""
    parts: dict[str, Tensor] = {}
    for (row, criterion), own in zip(judged, value, strict=True):
        if criterion.name:
            parts.setdefault(f"of_{criterion.name}", torch.full((rows,), float("nan")))[row] = own
    return parts
