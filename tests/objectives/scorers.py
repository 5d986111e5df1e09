"""Scorers whose gradients are known, and rows for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.core.protocols import Inputs
from mmalign.core.types import Modality, Preference, Prompt
from tests.toys import ToyAdapter


class Valued(ToyAdapter):
    """A scorer whose score of a text is linear in two of its counts: gradients are known."""

    modality: Modality = "text"

    def __init__(self) -> None:
        linear = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(linear.weight, 0.5)
        super().__init__(linear)

    def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
        counts = [[float(text.count("a")), float(text.count("b")) + 0.1 * len(text)] for text in outputs]
        return [{"counts": torch.tensor(row, dtype=torch.float64)} for row in counts]

    def score(self, inputs: Sequence[Inputs]) -> Tensor:
        return self.module(torch.stack([row["counts"] for row in inputs]))[:, 0]


def rows(*meta: dict[str, Any]) -> list[Preference]:
    sides = [("aab", "b"), ("a", "bbb"), ("ab", "aa"), ("aaaa", "")]
    return [Preference(Prompt(f"p{i}", meta=m), *sides[i]) for i, m in enumerate(meta)]
