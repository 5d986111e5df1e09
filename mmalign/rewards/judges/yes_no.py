"""A model's own yes or no to a question about an output, as a probability: any model that reads, sees or hears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import Positive
from mmalign.core.types import Audio, OneOutput, Prompt, Rollout, Scores, Status, device_of, modality_of
from mmalign.rewards.by_row import Known, media_of, read_rows
from mmalign.rewards.engine.contract import is_empty
from mmalign.rewards.functional import yes_probability
from mmalign.rewards.models.asking import Answers, Asking, Make
from mmalign.rewards.models.asks_judge import Answering, AsksJudge, judge_of
from mmalign.rewards.models.template import Template
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["YesNo"]

_OF = {
    "image": 'Does this picture show "{%s}"? Answer yes or no.',
    "audio": 'Does this sound match the description "{%s}"? Answer yes or no.',
}
_OF_TEXT = "Request:\n{prompt}\n\nAnswer:\n{output}\n\nDoes the answer do what the request asks? Answer yes or no."


@dataclass
class YesNo(AsksJudge):
    """P(yes) / (P(yes) + P(no)) of the first token with which a judge answers a question; in [0, 1].

    VQAScore (Lin et al. 2024, arXiv 2404.01291) with both answers, in float32. Judges pictures and sounds against their
    prompts; captions against the picture or sound they were written for; other texts by a language model.

    A judge that says neither yes nor no is an ERROR of its row (`judge.least_mass`), and so is a picture or sound that
    cannot be read. A text that is empty, or too long for the judge, is PARSE_FAIL. `parts`: `margin`,
    log P(yes) - log P(no), and `mass`, P(yes) + P(no); the confidence is |2 P - 1|. A question that names {prompt} is
    NOT_APPLICABLE to an empty one.

    Args:
        checkpoint: the judge: a folder or Hub id, of any image-text-to-text, audio-text or causal model
            of transformers.
        question: with {prompt}, {output} (of texts) and columns of `Prompt.meta` in braces; by default one that fits
            the output, such as 'Does this picture show "{prompt}"?'.
        good: the answer that is good; with `no` the value is 1 - P(yes). Never ask for an absence ("is there no …?"):
            ask for the thing, and call no good.
        media: for texts, whether the judge is shown what the prompt is about: `auto`, if there is anything;
            `required`, a row without is NOT_APPLICABLE; `ignored`.
        temperature: divides the margin; calibrates P where it is too sure.
        where: in a text the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read.
    """

    checkpoint: str
    question: str = ""
    good: Literal["yes", "no"] = "yes"
    media: Literal["auto", "required", "ignored"] = "auto"
    temperature: Positive = 1.0
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"image", "audio", "text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True
    version = "2"  # empty prompts have no score

    def __post_init__(self) -> None:
        faults = [] if self.temperature > 0 else [f"temperature: {self.temperature} must be above 0."]
        self._template = Template(self.question)
        if self.question and not self._template.names:
            faults.append("question: asks the same of every row unless it names {prompt}, {output} or a column.")
        if faults:
            raise ConfigError(faults)
        self.ask: Answering = judge_of(self.make, self.checkpoint, self.judge, "yes_no")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of `Prompt.meta` that the question names."""
        return self._template.columns

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B outputs by P(yes), or P(no) where `good` is "no", in [0, 1]; the confidence is |2 P - 1|.

        `parts`: "margin", the logit of yes minus that of no, and "mass", the probability of both words together.

        Raises:
            CapabilityError: a question that does not show the judge what it is about.
        """
        known: Known = {}
        made = modality_of(rollout.output)
        if made != "text" and "output" in self._template.names:
            shown = {"image": "pictures", "audio": "sounds"}[made]
            raise CapabilityError(f"question: names {{output}}, but {shown} are shown to the judge; name {{prompt}}.")
        if made == "text" and self.question and "output" not in self._template.names:
            raise CapabilityError("question: shows the judge none of the text it is about; name {output} in it.")

        def question_of(prompt: Prompt, output: OneOutput) -> Prompt | None:
            return self._about(prompt, {made: output}) if made != "text" else self._about_text(prompt, output, known)

        questions, scores = read_rows(question_of, rollout, self.range[0], self.needs)
        if questions:
            self._fill(scores, list(questions), self.ask(list(questions.values())), made == "text")
        return scores.to(device_of(rollout.output))

    def _about(self, prompt: Prompt, media: Mapping[str, Any], answer: str | None = None) -> Prompt | None:
        """The question about one output, shown in `media` or said; None if it is about an empty prompt."""
        sense = "audio" if any(isinstance(value, Audio) for value in media.values()) else "image"
        usual = _OF[sense] % ("prompt" if answer is None else "output") if media else _OF_TEXT
        template = self._template if self.question else Template(usual)
        if (
            "prompt" in template.names and is_empty(prompt) and (answer is None or not media)
        ):  # a picture may ask on its own
            return None
        return Prompt(template.filled(prompt, answer), media)

    def _about_text(self, prompt: Prompt, output: str, known: Known) -> Prompt | None:
        text = bounded(answer_of(output, self.where), LONG)
        media: Mapping[str, Any] = {} if self.media == "ignored" else media_of(prompt, known)
        return None if self.media == "required" and not media else self._about(prompt, media, text)

    def _fill(self, scores: Scores, rows: list[int], answers: Answers, written: bool) -> None:
        """Put the answers of the rows that were asked about into their scores."""
        yes = yes_probability(answers.margin, self.temperature)
        value = yes if self.good == "yes" else 1 - yes
        margin, mass, sure = (torch.full((len(scores),), float("nan")) for _ in range(3))
        margin[rows], mass[rows], sure[rows] = answers.margin, answers.mass, (2 * yes - 1).abs()
        info = scores.info or [""] * len(scores)
        for row, number, why, too_long in zip(rows, value.tolist(), answers.why, answers.too_long, strict=True):
            scores.value[row], info[row] = number, info[row] or why
            if why:
                unread = too_long and written  # by the policy
                scores.status[row] = int(Status.PARSE_FAIL if unread else Status.ERROR)
                scores.value[row] = self.range[0] if unread else float("nan")
        scores.parts |= {"margin": margin, "mass": mass}
        scores.confidence = sure.nan_to_num(nan=0.0)
        scores.info = info if any(info) else None
