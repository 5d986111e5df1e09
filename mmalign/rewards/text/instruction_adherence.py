"""Does an answer keep to what it was told about its form, length and content?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.columns import NeedsColumn
from mmalign.rewards.functional import yes_probability
from mmalign.rewards.models.asking import Asking, Make
from mmalign.rewards.models.asks_judge import AsksJudge, judge_of
from mmalign.rewards.models.template import Template, check_template
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded
from mmalign.rewards.text._instructions import followed, read_instructions

__all__ = ["InstructionAdherence"]

_QUESTION = "Text:\n{output}\n\nInstruction: {instruction}\n\nDoes the text follow the instruction? Answer yes or no."


@dataclass
class InstructionAdherence(NeedsColumn, AsksJudge):
    """The share of a prompt's instructions that its answer follows, in [0, 1]; one aspect of HARMO (2510.05283).

    Its own form was out of reach: a reconstruction. Instructions that a rule can check are objects such as
    {"max_words": 50} (`_instructions.CHECKS`), each 0 or 1; those in words are asked of a judge, each P(yes). A row
    without instructions is NOT_APPLICABLE; an empty answer, or one too long for the judge, is PARSE_FAIL; an answer of
    the judge that is missing is an ERROR. `parts`: `rules` and `judged`, the mean of each kind, and `all`, the product.

    Args:
        column: of `Prompt.meta`: a list of instructions, or a single one.
        strict: the value is `all`: one instruction that is not followed undoes the others.
        checkpoint: the judge of instructions in words; "": there must be none.
        question: to the judge, with {instruction} and {output}.
        where: the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read.
    """

    column: str = "instructions"
    strict: bool = False
    checkpoint: str = ""
    question: str = _QUESTION
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        self._template = check_template(self.question, "question", ["instruction"])
        if "output" not in self._template.names:
            raise ConfigError("question: shows the judge no answer; name {output} in it.")
        named = judge_of(self.make, self.checkpoint, self.judge, "instruction_adherence") if self.checkpoint else None
        self.ask, self.make = named, None

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B answers by the mean of how far each instruction is followed, or (`strict`) by their product.

        `parts`: "rules" and "judged", the means of either kind, and "all", the product. A row without instructions is
        NOT_APPLICABLE.
        """
        read, scores = read_rows(self._read, rollout, self.range[0], self.needs)
        for name in ("rules", "judged", "all"):
            scores.parts[name] = torch.full((len(scores),), float("nan"))
        questions_by_row = [(row, question) for row, (_, questions) in read.items() for question in questions]
        judged = self._judged(scores, questions_by_row)
        for row, (checked, _) in read.items():
            if scores.status[row] != Status.OK:
                continue
            values = torch.tensor([*map(float, checked), *judged.get(row, [])])
            parts = {"rules": values[: len(checked)], "judged": values[len(checked) :]}
            for name, part in parts.items():
                scores.parts[name][row] = part.mean() if len(part) else float("nan")
            scores.parts["all"][row] = values.prod()
            scores.value[row] = values.prod() if self.strict else values.mean()
        return scores

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where a row's instructions cannot be read, or are in words and there is no judge."""
        self._instructions(prompt)

    def _instructions(self, prompt: Prompt) -> tuple[list[tuple[str, Any]], list[str]]:
        checks, sentences = read_instructions(prompt.meta[self.column], f"Prompt.meta['{self.column}']")
        if sentences and self.ask is None:
            raise ValueError(
                f"Prompt.meta['{self.column}']: {sentences[0][:60]!r} is in words; name a judge as checkpoint"
            )
        return checks, sentences

    def _read(self, prompt: Prompt, output: str) -> tuple[list[bool], list[Prompt]] | None:
        """What the rules say of one answer, and what the judge is to be asked about it."""
        checks, sentences = self._instructions(prompt)
        if not checks and not sentences:
            return None
        answer = bounded(answer_of(output, self.where), LONG)
        questions = [self._filled(prompt, text, answer) for text in sentences]
        return followed(answer, checks), questions

    def _filled(self, prompt: Prompt, instruction: str, answer: str) -> Prompt:
        meta: dict[str, Any] = {**prompt.meta, "instruction": instruction}
        return Prompt(Template(self.question).filled(Prompt(prompt.text, meta=meta), answer))

    def _judged(self, scores: Scores, questions: list[tuple[int, Prompt]]) -> dict[int, list[float]]:
        """P(followed) of the instructions in words by row; rows whose judge fell silent get their status here."""
        probabilities: dict[int, list[float]] = {}
        if not questions or self.ask is None:
            return probabilities
        answers = self.ask([question for _, question in questions])
        info = scores.info or [""] * len(scores)
        replies = zip(questions, yes_probability(answers.margin).tolist(), answers.why, answers.too_long, strict=True)
        for (row, _), value, why, too_long in replies:
            probabilities.setdefault(row, []).append(value)
            if why:
                info[row] = info[row] or why
                scores.status[row] = int(Status.PARSE_FAIL if too_long else Status.ERROR)
                scores.value[row] = self.range[0] if too_long else float("nan")
        scores.info = info if any(info) else None
        return probabilities
