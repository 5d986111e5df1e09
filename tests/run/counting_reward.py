"""A reward that writes down each row that it scores, and takes its time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from mmalign.core.types import Modality, Rollout, Scores


@dataclass
class Counting:
    """The length of a text over ten; `delay` seconds a call."""

    delay: float = 0.0
    batch_dependent: bool = False

    modalities: ClassVar[frozenset[Modality]] = frozenset({"text"})
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, rollout: Rollout) -> Scores:
        time.sleep(self.delay)
        with Path(os.environ["COUNTED"]).open("a") as file:
            file.writelines(f"{output}\n" for output in rollout.output)
        return Scores.of(torch.tensor([len(output) / 10 for output in rollout.output]))
