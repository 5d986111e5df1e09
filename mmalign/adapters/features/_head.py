"""The trained head on a frozen encoder; a file of its own, so that the adapter is described without torch."""

from __future__ import annotations

import torch

from mmalign.core.tensor import Tensor

__all__ = ["Head"]


class Head(torch.nn.Module):
    """φ of an embedding, θᵀφ, and the gates; all of it in one forward, which a launcher may wrap.

    `gate` is how many kinds there are, and the width of their embeddings.
    """

    def __init__(self, inputs: int, width: int, hidden: int, gate: tuple[int, int] | None) -> None:
        super().__init__()
        first = [torch.nn.Linear(inputs, hidden), torch.nn.SiLU()] if hidden else []
        self.features = torch.nn.Sequential(*first, torch.nn.Linear(hidden or inputs, width))
        self.score = torch.nn.Linear(width, 1)
        self.kinds = self.opened = None
        if gate is not None:
            self.kinds = torch.nn.Embedding(*gate)
            self.opened = torch.nn.Linear(2 * gate[1], width)
            torch.nn.init.zeros_(self.opened.weight)
            torch.nn.init.zeros_(self.opened.bias)

    def forward(self, embedding: Tensor | None, pairs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute (scores (B,), features (B, D)) of embeddings (B, E), or the gates (B, D) of pairs (B, 2) twice."""
        if pairs is not None:
            assert self.kinds is not None and self.opened is not None, "a head without gates"
            gates = self.opened(self.kinds(pairs).flatten(1)).sigmoid()
            return gates, gates
        features = self.features(embedding)
        scores = self.score(features)[:, 0]
        # Processes that train together wait for every weight's gradient: it is 0 where only features count.
        unread = scores if self.opened is None else scores + self.opened.bias.sum() + self.opened.weight.sum()
        unread = unread if self.kinds is None else unread + self.kinds.weight.sum()
        return scores, features + 0.0 * unread[:, None]
