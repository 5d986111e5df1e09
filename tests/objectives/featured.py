"""A scorer whose features are a small network's of counts of letters, in float64, and rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.core.protocols import Gather, Inputs, one_alone
from mmalign.core.types import Modality, Preference, Prompt
from mmalign.policies.scorer import Scorer
from tests.objectives.driving import alone, stream
from tests.toys import ToyAdapter

LETTERS = "abcd"


class Featured(ToyAdapter):
    """`StateAdapter` in memory: a token is a letter, its state the network's of the counts of letters so far."""

    modality: Modality = "text"

    def __init__(self, width: int = 6, seed: int = 0) -> None:
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(len(LETTERS), width), nn.Tanh(), nn.Linear(width, width), nn.Linear(width, 1))
        super().__init__(layers.double())

    def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
        rows: list[Inputs] = []
        for text in outputs:
            each = torch.tensor([[float(letter == known) for known in LETTERS] for letter in text or "a"])
            rows.append({"counts": each.double().cumsum(0)})
        return rows

    def score(self, inputs: Sequence[Inputs]) -> Tensor:
        return self.scored_features(inputs)[0]

    def scored_features(self, inputs: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
        scores, states = self._forward(torch.stack([row["counts"][-1] for row in inputs]))
        return scores, states

    def scored_states(self, inputs: Sequence[Inputs]) -> tuple[Tensor, Tensor, Tensor]:
        counts = nn.utils.rnn.pad_sequence([row["counts"] for row in inputs], batch_first=True)
        mask = torch.arange(counts.shape[1]) < torch.tensor([len(row["counts"]) for row in inputs])[:, None]
        return self.scored_features(inputs)[0], self._forward(counts)[1], mask

    def _forward(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer is the head; all of it runs inside `module`, which a launcher may wrap."""
        kept: list[Tensor] = []
        hook = self.network[2].register_forward_hook(lambda _, __, out: kept.append(out))  # type: ignore[index]
        scores = self.module(counts)[..., 0]
        hook.remove()
        return scores, kept[0] + 0.0 * scores[..., None]


TRIPLES = [("aab", "ab", "cc"), ("bb", "bbbc", "ad"), ("cad", "ccd", "ab"), ("dd", "d", "aaaa"), ("abcd", "dcba", "b")]


def scorer() -> Scorer:
    return Scorer(Featured())


def triples(count: int = 5) -> list[Preference]:
    """Anchor, what belongs to it, and what does not."""
    return [Preference(Prompt(anchor), near, far) for anchor, near, far in TRIPLES[:count]]


def weighted(objective: Any, policy: Any, batch: Any) -> Any:
    found = objective.collect(policy, batch, stream(0))
    return replace(found, weight=objective.weigh(found.mask, alone).double())


def slope(
    objective: Any, policy: Any, experience: Any, rows: int = 99, gather: Gather = one_alone, rank: int = 0
) -> Any:
    """Loss and gradient, accumulated over parts of `rows` rows."""
    policy.module.zero_grad(set_to_none=True)
    experience = objective.tie_rows(policy, experience, rows, gather, rank)
    total = 0.0
    for chunk, _ in experience.chunks(rows, 1):
        loss, _ = objective.loss(policy, chunk, stream(0))
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in policy.module.parameters()])
