"""Rewards outside mmalign: run files may name them only where the command line allows this module."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.core.types import Prompt, Scores
from mmalign.rewards import rule


@dataclass
class WordCount:
    """How many words an answer has."""

    modalities: ClassVar[frozenset[str]] = frozenset({"text"})
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    differentiable: ClassVar[bool] = False

    def __call__(self, rollout: Any) -> Scores:
        return Scores.of(torch.tensor([float(len(text.split())) for text in rollout.output]))


@rule(modalities={"image"}, range=(0.0, 1.0))
def undecided(prompt: Prompt, output: torch.Tensor) -> float | None:
    """Applies to no picture there is."""
    return 1.0 if float(output.mean()) > 2 else None
