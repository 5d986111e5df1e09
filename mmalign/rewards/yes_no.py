"""A model's own yes or no to a question about an output, as a probability: any vision-language or language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards._judge import Answers, Asking, Judge, Make
from mmalign.rewards._media import Known, pictures_of
from mmalign.rewards._rows import read_rows
from mmalign.rewards._template import Template
from mmalign.rewards.functional import yes_probability
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["YesNo"]

_OF_PICTURE = 'Does this picture show "{prompt}"? Answer yes or no.'
_OF_CAPTION = 'Does this picture show "{output}"? Answer yes or no.'
_OF_TEXT = "Request:\n{prompt}\n\nAnswer:\n{output}\n\nDoes the answer do what the request asks? Answer yes or no."


@dataclass
class YesNo:
    """P(yes) / (P(yes) + P(no)) of the first token with which a judge answers a question; in [0, 1].

    VQAScore (Lin et al. 2024, arXiv 2404.01291) with both answers, in float32. Judges pictures against their prompts;
    captions against the picture they were written for; other texts by a language model.

    A judge that says neither yes nor no is an ERROR of its row (`judge.least_mass`), and so is a picture that cannot be
    read. A text that is empty, or too long for the judge, is PARSE_FAIL. `parts`: `margin`, log P(yes) - log P(no), and
    `mass`, P(yes) + P(no); the confidence is |2 P - 1|.

    Args:
        checkpoint: the judge: a folder or Hub id, of any image-text-to-text or causal model of transformers.
        question: with {prompt}, {output} (of texts) and columns of `Prompt.meta` in braces; by default one that fits
            the output, such as 'Does this picture show "{prompt}"?'.
        good: the answer that is good; with `no` the value is 1 - P(yes). Never ask for an absence ("is there no …?"):
            ask for the thing, and call no good.
        picture: for texts, whether the judge sees the pictures of the prompt: `auto`, if there are any; `required`, a
            row without is NOT_APPLICABLE; `ignored`.
        temperature: divides the margin; calibrates P where it is too sure.
        where: in a text the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read.
    """

    checkpoint: str
    question: str = ""
    good: Literal["yes", "no"] = "yes"
    picture: Literal["auto", "required", "ignored"] = "auto"
    temperature: float = 1.0
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"image", "text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        faults = [] if self.temperature > 0 else [f"temperature: {self.temperature} must be above 0."]
        self._asked = Template(self.question)
        if self.question and not self._asked.names:
            faults.append("question: asks the same of every row unless it names {prompt}, {output} or a column.")
        if faults:
            raise ConfigError(faults)
        self._judge = Judge(self.make, self.checkpoint, self.judge, "yes_no")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return self._asked.columns

    @property
    def isolated(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.judge.isolated

    def prepare(self) -> None:
        """Load the judge."""
        _ = self._judge.words

    def fingerprint(self) -> str:
        """Of the judge."""
        return self._judge.fingerprint()

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        known: Known = {}
        shown = isinstance(rollout.output, Tensor)
        if shown and "output" in self._asked.names:
            raise CapabilityError("question: names {output}, but pictures are shown to the judge; name {prompt} there.")
        ask = self._about_picture if shown else lambda prompt, output: self._about_text(prompt, output, known)
        asked, scores = read_rows(ask, rollout, self.range[0], self.needs)
        if asked:
            self._fill(scores, list(asked), self._judge(list(asked.values())), shown)
        return scores.to(rollout.output.device) if shown else scores

    def _about_picture(self, prompt: Prompt, output: Tensor) -> Prompt:
        return Prompt((self._asked if self.question else Template(_OF_PICTURE)).filled(prompt), {"image": output})

    def _about_text(self, prompt: Prompt, output: str, known: Known) -> Prompt | None:
        said = bounded(answer_of(output, self.where), LONG)
        media: Any = {} if self.picture == "ignored" else pictures_of(prompt, known)
        if not media and self.picture == "required":
            return None
        usual = Template(_OF_CAPTION if media else _OF_TEXT)
        return Prompt((self._asked if self.question else usual).filled(prompt, said), media)

    def _fill(self, scores: Scores, rows: list[int], answers: Answers, shown: bool) -> None:
        """Put the answers of the rows that were asked about into their scores."""
        yes = yes_probability(answers.margin, self.temperature)
        value = yes if self.good == "yes" else 1 - yes
        margin, mass, sure = (torch.full((len(scores),), float("nan")) for _ in range(3))
        margin[rows], mass[rows], sure[rows] = answers.margin, answers.mass, (2 * yes - 1).abs()
        info = scores.info or [""] * len(scores)
        for row, number, why, too_long in zip(rows, value.tolist(), answers.why, answers.too_long, strict=True):
            scores.value[row], info[row] = number, info[row] or why
            if why:
                unread = too_long and not shown  # the policy wrote it
                scores.status[row] = int(Status.PARSE_FAIL if unread else Status.ERROR)
                scores.value[row] = self.range[0] if unread else float("nan")
        scores.parts |= {"margin": margin, "mass": mass}
        scores.confidence = sure.nan_to_num(nan=0.0)
        scores.info = info if any(info) else None
