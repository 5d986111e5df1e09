"""Does an output match its prompt, key point by key point, in the answers of any model that sees, hears or reads?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.options import Positive
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, OneOutput, Prompt, Rollout, Scores, Status, device_of, modality_of
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.functional import gated, group_means, key_point_scores, yes_probability
from mmalign.rewards.models.asking import Answers, Asking, Make
from mmalign.rewards.models.asks_judge import Answering, AsksJudge, judge_of
from mmalign.rewards.models.template import Template, check_template, require_output_named
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded
from mmalign.rewards.points import GROUPS, POINTS, KeyPoint, make_source

__all__ = ["AlignEvaluator"]

_FRAME, _FRAME_OF_TEXT = "{question} Answer yes or no.", "Text:\n{output}\n\n{question} Answer yes or no."


@dataclass
class AlignEvaluator(AsksJudge):
    """The mean over groups of the mean over key points of P(the point holds), in [0, 1].

    AlignEvaluator of PromptEnhancer (arXiv 2509.04545), whose model and prompts are not published: its 24 key points in
    six groups and its means of means; the judge, who answers a question per point, is any model (a reconstruction).

    Key points are those of the user's prompt and stand in the data, so that nobody can leave out what is hard; inside
    `through` a rewrite is judged by them too. A prompt without any is NOT_APPLICABLE. A point that the judge does not
    answer is left out of the means, never counted as a no; a row without any answer is an ERROR. Texts are judged by
    reading them: an empty one is PARSE_FAIL.

    `parts`: every reading of `functional.key_point_scores` under its name, the mean of each group and of each key point
    that occurs (after polarity and gate), `unanswered`, a share, and `mass`, the mean of P(yes) + P(no). The confidence
    is the mean of |2 P - 1|.

    Args:
        checkpoint: the judge: a folder or Hub id, of any image-text-to-text, audio-text or causal model
            of transformers.
        points: where key points come from, {name: …, options} of `rewards.points`: `column`, `described`, `scenes`.
        reading: which of `functional.key_point_scores` is the value.
        frame: around a {question}; of texts with {output}.
        temperature: divides the margin between yes and no; calibrates the judge.
        temperatures: of single key points.
        shares: of groups in the mean, 1 where not named.
        where: in a text the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read.
    """

    checkpoint: str
    points: dict[str, Any] = field(default_factory=lambda: {"name": "column"})
    reading: Literal["groups", "flat", "all", "hard"] = "groups"
    frame: str = ""
    temperature: Positive = 1.0
    temperatures: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"image", "audio", "text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        faults = [] if self.temperature > 0 else [f"temperature: {self.temperature} must be above 0."]
        faults += _odd(self.temperatures, POINTS, "temperatures", "key point")
        faults += _odd(self.shares, GROUPS, "shares", "group")
        if faults:
            raise ConfigError(faults)
        if self.frame:
            check_template(self.frame, "frame", ["question"])
        self._source = make_source(self.points)
        self.ask: Answering = judge_of(self.make, self.checkpoint, self.judge, "align_evaluator")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        framed = [column for column in Template(self.frame).columns if column != "question"]
        return (*self._source.needs, *framed)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B outputs by the key points of their prompts that the judge sees in them, in [0, 1].

        A prompt without points is NOT_APPLICABLE, a row without any answer of the judge an ERROR.
        """
        made = modality_of(rollout.output)
        require_output_named(self.frame, "frame", made)
        by_row, read = read_rows(partial(self._questions, made), rollout, self.range[0], self.needs)
        if not by_row:
            return read.to(device_of(rollout.output))
        answers = self.ask([question for questions, _ in by_row.values() for question in questions])
        table = PointTable.of({row: points for row, (_, points) in by_row.items()}, len(rollout))
        return self._scored(read, table, answers, made == "text").to(device_of(rollout.output))

    def _questions(
        self, made: Modality, prompt: Prompt, output: OneOutput
    ) -> tuple[list[Prompt], list[KeyPoint]] | None:
        """The questions about one output, and what they are about."""
        answer = bounded(answer_of(output, self.where), LONG) if made == "text" else None
        if not (points := self._source(prompt)):
            return None
        frame = Template(self.frame or (_FRAME if answer is None else _FRAME_OF_TEXT))
        media: dict[str, Any] = {made: output} if answer is None else {}
        texts = [
            frame.filled(Prompt(prompt.text, meta={**prompt.meta, "question": p.question}), answer) for p in points
        ]
        return [Prompt(text, media) for text in texts], list(points)

    def _scored(self, read: Scores, table: PointTable, answers: Answers, written: bool) -> Scores:
        """The scores of all rows, from how they were read and the answers about their points."""
        yes = self._probability(table.points, answers)
        value = table.gated(yes)
        share = torch.tensor([self.shares.get(name, 1.0) for name in GROUPS])
        readings = key_point_scores(value, table.row, table.group, table.weight, share, table.rows)
        status = self._status(read.status, readings[self.reading], table, answers, written)
        floor = torch.where(status == Status.PARSE_FAIL, self.range[0], float("nan"))
        reasons = list(read.info or [""] * table.rows)
        for row, why in zip(table.row.tolist(), answers.why, strict=True):
            reasons[row] = reasons[row] or why
        return Scores(
            value=torch.where(status == Status.OK, readings[self.reading], floor),
            status=status,
            confidence=table.mean((2 * yes - 1).abs()).nan_to_num(nan=0.0),
            parts=readings | table.details(value) | {"mass": table.mean(answers.mass)},
            info=reasons if any(reasons) else None,
        )

    def _probability(self, points: Sequence[KeyPoint], answers: Answers) -> Float[Tensor, " P"]:
        """P(each point holds) before its gate: temperature and polarity."""
        heat = torch.tensor([self.temperatures.get(point.point, self.temperature) for point in points])
        yes = yes_probability(answers.margin, heat)
        return torch.where(torch.tensor([point.positive for point in points]), yes, 1 - yes)

    def _status(
        self, read: Tensor, value: Float[Tensor, " B"], table: PointTable, answers: Answers, written: bool
    ) -> Int[Tensor, " B"]:
        """Rows without any answer are an ERROR; texts that the policy wrote too long for the judge are PARSE_FAIL."""
        status = read.clone()
        if written:
            status[table.row[torch.tensor(answers.too_long)]] = int(Status.PARSE_FAIL)
        return torch.where(value.isnan() & (status == Status.OK), int(Status.ERROR), status).to(torch.int8)


@dataclass(frozen=True)
class PointTable:
    """The P key points of all rows that are asked about, one after the other, with the row of each, of B."""

    points: list[KeyPoint]
    row: Int[Tensor, " P"]
    rows: int

    @classmethod
    def of(cls, points: Mapping[int, Sequence[KeyPoint]], rows: int) -> PointTable:
        """The table of the points of some of `rows` rows, given by row number."""
        numbers = [row for row, own in points.items() for _ in own]
        return cls([point for own in points.values() for point in own], torch.tensor(numbers), rows)

    @property
    def group(self) -> Int[Tensor, " P"]:
        """The number of each point's group in `GROUPS`."""
        return torch.tensor([list(GROUPS).index(point.group) for point in self.points])

    @property
    def weight(self) -> Float[Tensor, " P"]:
        """The weight of each point in its group."""
        return torch.tensor([point.weight for point in self.points])

    def gated(self, yes: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Each point's probability times those of its parents in its row."""
        lengths = torch.unique_consecutive(self.row, return_counts=True)[1].tolist()
        parents = iter([point.parents for point in self.points])
        return torch.cat([gated(own, [next(parents) for _ in own]) for own in yes.split(lengths)])

    def mean(self, value: Float[Tensor, " P"]) -> Float[Tensor, " B"]:
        """The plain mean over each row's points, without those that are NaN."""
        return group_means(value, self.row, torch.zeros_like(self.row), torch.ones(len(value)), (self.rows, 1))[:, 0]

    def details(self, value: Float[Tensor, " P"]) -> dict[str, Float[Tensor, " B"]]:
        """The weighted means of groups and of key points that occur, and the share that stayed unanswered."""
        groups = group_means(value, self.row, self.group, self.weight, (self.rows, len(GROUPS)))
        names = list(dict.fromkeys(point.point for point in self.points))
        number = torch.tensor([names.index(point.point) for point in self.points])
        single = group_means(value, self.row, number, self.weight, (self.rows, len(names)))
        return (
            {name: groups[:, i] for i, name in enumerate(GROUPS) if bool((self.group == i).any())}
            | {name: single[:, i] for i, name in enumerate(names)}
            | {"unanswered": self.mean(value.isnan().float())}
        )


def _odd(options: dict[str, float], known: dict[str, Any], option: str, what: str) -> list[str]:
    faults = [
        f"{option}.{name}: no {what} is called so.{did_you_mean(name, known)} Known: {', '.join(known)}."
        for name in options
        if name not in known
    ]
    return faults + [f"{option}.{name}: {v} must be above 0." for name, v in options.items() if v <= 0]
