"""Does an output match its prompt, key point by key point, in the answers of any model that sees, hears or reads?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from mmalign.core.errors import CapabilityError, ConfigError, did_you_mean
from mmalign.core.options import Positive
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.rows import device_of, modality_of, read_rows
from mmalign.rewards.functional import gated, group_means, key_point_scores, yes_probability
from mmalign.rewards.models.judge import Answers, Asking, AsksJudge, Judge, Make
from mmalign.rewards.models.template import Template, check_template
from mmalign.rewards.parsing import LONG, bounded
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
        judge: how the judge is loaded and read.
    """

    checkpoint: str
    points: dict[str, Any] = field(default_factory=lambda: {"name": "column"})
    reading: Literal["groups", "flat", "all", "hard"] = "groups"
    frame: str = ""
    temperature: Positive = 1.0
    temperatures: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
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
        self._judge: Judge = Judge(self.make, self.checkpoint, self.judge, "align_evaluator")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        framed = [column for column in Template(self.frame).columns if column != "question"]
        return (*self._source.needs, *framed)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        made = modality_of(rollout.output)
        if self.frame and (made == "text") != ("output" in Template(self.frame).names):
            wrong = (
                "shows the judge none of the text it is about" if made == "text" else "names {output}, which is shown"
            )
            raise CapabilityError(f"frame: {wrong}; {'name {output} in it' if made == 'text' else 'leave it out'}.")
        asked, scores = read_rows(partial(self._asked, made), rollout, self.range[0], self.needs)
        if asked:
            answers = self._judge([question for questions, _ in asked.values() for question in questions])
            self._fill(scores, {row: points for row, (_, points) in asked.items()}, answers, made == "text")
        return scores.to(device_of(rollout.output))

    def _asked(self, made: Modality, prompt: Prompt, output: Any) -> tuple[list[Prompt], list[KeyPoint]] | None:
        """The questions about one output, and what they are about."""
        said = bounded(output, LONG) if made == "text" else None
        if not (points := self._source(prompt)):
            return None
        frame = Template(self.frame or (_FRAME if said is None else _FRAME_OF_TEXT))
        media: dict[str, Any] = {made: output} if said is None else {}
        texts = [frame.filled(Prompt(prompt.text, meta={**prompt.meta, "question": p.question}), said) for p in points]
        return [Prompt(text, media) for text in texts], list(points)

    def _fill(self, scores: Scores, rows: dict[int, list[KeyPoint]], answers: Answers, written: bool) -> None:
        """Put the answers about each row's points into its score."""
        points = [point for row in rows.values() for point in row]
        row = torch.tensor([number for number, held in rows.items() for _ in held])
        yes = self._held(points, answers)
        gates = [gated(part, [p.parents for p in held]) for part, held in _split(yes, rows)]
        value, group = torch.cat(gates), torch.tensor([list(GROUPS).index(point.group) for point in points])
        weight = torch.tensor([point.weight for point in points])
        share = torch.tensor([self.shares.get(name, 1.0) for name in GROUPS])
        found = key_point_scores(value, row, group, weight, share, len(scores))
        sure = group_means((2 * yes - 1).abs(), row, torch.zeros_like(row), torch.ones_like(weight), (len(scores), 1))
        scores.confidence = sure[:, 0].nan_to_num(nan=0.0)
        mass = group_means(answers.mass, row, torch.zeros_like(row), torch.ones_like(weight), (len(scores), 1))
        scores.parts |= found | self._details(points, value, row, group, weight, len(scores)) | {"mass": mass[:, 0]}
        self._status(scores, found[self.reading], row, answers, written)

    def _held(self, points: Sequence[KeyPoint], answers: Answers) -> Tensor:
        """P(each point holds) before its gate: temperature and polarity."""
        heat = torch.tensor([self.temperatures.get(point.point, self.temperature) for point in points])
        yes = yes_probability(answers.margin, heat)
        return torch.where(torch.tensor([point.positive for point in points]), yes, 1 - yes)

    def _details(
        self, points: Sequence[KeyPoint], value: Tensor, row: Tensor, group: Tensor, weight: Tensor, rows: int
    ) -> dict[str, Tensor]:
        """The parts that are logged: groups, key points, and what stayed unanswered."""
        means = group_means(value, row, group, weight, (rows, len(GROUPS)))
        names = list(dict.fromkeys(point.point for point in points))
        number = torch.tensor([names.index(point.point) for point in points])
        single = group_means(value, row, number, weight, (rows, len(names)))
        silent = group_means(value.isnan().float(), row, torch.zeros_like(row), torch.ones_like(weight), (rows, 1))
        present = [(i, name) for i, name in enumerate(GROUPS) if bool((group == i).any())]
        return (
            {name: means[:, i] for i, name in present}
            | {name: single[:, i] for i, name in enumerate(names)}
            | {"unanswered": silent[:, 0]}
        )

    def _status(self, scores: Scores, value: Tensor, row: Tensor, answers: Answers, written: bool) -> None:
        info = scores.info or [""] * len(scores)
        for place, number in enumerate(row.tolist()):
            info[number] = info[number] or answers.why[place]
            if answers.too_long[place] and written:  # by the policy
                scores.status[number] = int(Status.PARSE_FAIL)
        asked = row.unique()
        silent = value.isnan() & (scores.status == Status.OK)
        scores.status[silent] = int(Status.ERROR)
        fine = asked[scores.status[asked] == Status.OK]
        scores.value[fine] = value[fine]
        scores.value[silent] = float("nan")
        scores.value[scores.status == Status.PARSE_FAIL] = self.range[0]
        scores.info = info if any(info) else None


def _split(values: Tensor, rows: dict[int, list[KeyPoint]]) -> list[tuple[Tensor, list[KeyPoint]]]:
    return list(zip(values.split([len(held) for held in rows.values()]), rows.values(), strict=True))


def _odd(given: dict[str, float], known: dict[str, Any], option: str, what: str) -> list[str]:
    faults = [
        f"{option}.{name}: no {what} is called so.{did_you_mean(name, known)} Known: {', '.join(known)}."
        for name in given
        if name not in known
    ]
    return faults + [f"{option}.{name}: {v} must be above 0." for name, v in given.items() if v <= 0]
