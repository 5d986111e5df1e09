"""Texts that embed like those of the same question and unlike others', in the policy's own hidden states: GRACE."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmalign.core.options import NotNegative, Positive, must, refuse
from mmalign.core.types import Rollout, Scores, Status
from mmalign.rewards.functional import embedding_contrast
from mmalign.rewards.text.consensus import value_numbers

__all__ = ["EmbeddingContrast"]


@dataclass
class EmbeddingContrast:
    """(positive - negative + own·w_own - across·w_across) / τ of an output's features, in ±(2 + w_own + w_across) / τ.

    GRACE (2510.04506), after the authors' public reward; the cosines are those of `functional.embedding_contrast`. An
    output is a rationale of its question, and its embedding the mean of the policy's last hidden states over it:
    `policy: {name: tokens, keep_features: true}`. Wordings of one question share the value of a column and a step
    (`data: {name: views, …}`); the outputs to other questions of the step are negatives. A row whose question has no
    other wording in the step is NOT_APPLICABLE. `parts` are the four cosines.

    Embeddings can agree without saying anything: watch a reward of what the texts mean beside it.

    Args:
        column: of `Prompt.meta`: what the wordings of one question have in common.
        own: w_own, the pull of the outputs to one wording towards each other; negative for diversity.
        across: w_across, the push from the nearest output to each other question.
        temperature: τ.
    """

    column: str = "view_of"
    own: float = 0.2
    across: NotNegative = 0.2
    temperature: Positive = 0.1
    modalities = frozenset({"text"})
    differentiable = False
    batch_dependent = True  # other rows are positives and negatives
    reads_features = True

    def __post_init__(self) -> None:
        refuse(
            must(self.temperature > 0, f"temperature: {self.temperature} must be positive."),
            must(self.across >= 0, f"across: {self.across} must be at least 0."),
        )

    @property
    def range(self) -> tuple[float, float]:
        """The bounds of the value."""
        most = (2 + abs(self.own) + self.across) / self.temperature
        return (-most, most)

    @property
    def needs(self) -> tuple[str, ...]:
        """The column that wordings share."""
        return (self.column,)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, whole steps of them."""
        count = len(rollout)
        question = value_numbers([prompt.meta.get(self.column) for prompt in rollout.prompts])
        features = rollout.trajectory.get("features")
        if features is None:
            why = ["these outputs carry no features; set policy.keep_features: true"] * count
            status = torch.full((count,), int(Status.ERROR), dtype=torch.int8)
            return Scores(torch.full((count,), float("nan")), status, info=why)
        apart = torch.where(question < 0, -1 - torch.arange(count), question)  # of no question: a question of its own
        parts = embedding_contrast(features.float().cpu(), rollout.group.cpu(), apart)
        value = parts["positive"] - parts["negative"] + self.own * parts["own"] - self.across * parts["across"]
        alone = value.isnan()
        status = torch.where(alone, int(Status.NOT_APPLICABLE), int(Status.OK)).to(torch.int8)
        info = ["no other wording of its question is in this step" if one else "" for one in alone.tolist()]
        return Scores(value / self.temperature, status, parts=parts, info=info if bool(alone.any()) else None)
