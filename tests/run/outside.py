"""A reward outside mmalign that judges text: run files may name it only where the command line allows this module."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.core.types import Scores


@dataclass
class WordCount:
    """How many words an answer has."""

    modalities: ClassVar[frozenset[str]] = frozenset({"text"})
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    differentiable: ClassVar[bool] = False

    def __call__(self, rollout: Any) -> Scores:
        return Scores.of(torch.tensor([float(len(text.split())) for text in rollout.output]))
