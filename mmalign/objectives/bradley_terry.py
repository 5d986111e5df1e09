"""A reward model from comparisons: the score whose differences best explain which output was preferred.

Papers: Bradley & Terry 1952; reward models of language, Stiennon et al. 2020 (arXiv 2009.01325, eq. 1); margin, Llama 2
(2307.09288, eq. 2); ties, Rao & Kupper 1967 and Davidson 1970, see `_comparison.py`; centring, Eisenstein et al. 2023
(2312.09244); BaseReward (2509.16127) is the recipe `head: {kind: mlp2}` with all of these off.

    loss = -log P(outcome | d - m) + c (r_w + r_l)²,   d = r_w - r_l,   P(w preferred) = σ(d)

| symbol | here | meaning |
|---|---|---|
| r | `policy.score` | the model's number for an output, given its prompt |
| w, l | `chosen`, `rejected` | the two outputs of a comparison |
| m | column `margin` | by how much the preferred one must lead, in units of r; 0 where the row does not say |
| c | `centre` | strength of the pull of scores towards mean 0 |

A row may say more in its own columns: `label` (P(chosen is better), default 1), a true `tie`, `margin`. Left out: tie
strengths that are learned, critiques before the score (MM-RLHF), contrastive terms, several dimensions at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.experience import Comparisons
from mmalign.core.options import NotNegative, Share
from mmalign.core.protocols import Mean, ScorePolicy
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Preference, Rollout
from mmalign.objectives import _weights
from mmalign.objectives._comparison import Ties, centring, comparison_loss
from mmalign.objectives._observing import number, observed
from mmalign.objectives._preference import agreement, smoothed
from mmalign.objectives._scoring import means

YES, NO = ("true", "1", "1.0"), ("", "false", "0", "0.0")


@dataclass
class BradleyTerry:
    """Fit scores to preferences.

    Args:
        ties: what a tie says: half a win for each side, or an outcome with a probability of its own.
        tie_share: how likely a tie between equally good outputs is, in (0, 1); for the models of ties.
        tie: the column that marks ties (true or false).
        margin: the column with the lead that the preferred output must have, at least 0.
        margin_scale: multiplies it; 0 leaves margins out.
        centre: strength c of the pull towards scores of mean 0; 0.01 is usual.
        label_smoothing: the share of comparisons that are taken to be wrong, in [0, 0.5).
    """

    ties: Ties = "half"
    tie_share: Share = 0.2
    tie: str = "tie"
    margin: str = "margin"
    margin_scale: NotNegative = 1.0
    centre: NotNegative = 0.0
    label_smoothing: Share = 0.0

    needs: ClassVar[type] = ScorePolicy
    reads: ClassVar[frozenset[str]] = frozenset({"preferences"})

    def __post_init__(self) -> None:
        rules = (
            (0 < self.tie_share < 1, f"tie_share: {self.tie_share} is not in (0, 1)."),
            (self.margin_scale >= 0, f"margin_scale: {self.margin_scale} must be at least 0."),
            (self.centre >= 0, f"centre: {self.centre} must be at least 0."),
            (0 <= self.label_smoothing < 0.5, f"label_smoothing: {self.label_smoothing} is not in [0, 0.5)."),
        )
        if faults := [message for fine, message in rules if not fine]:
            raise ConfigError(faults)

    def collect(self, policy: Any, batch: Sequence[Any], rng: torch.Generator) -> Comparisons:
        """The rows of the data; nothing is sampled."""
        pairs = observed(policy, batch, "bradley_terry", "data: {name: preferences, …}")
        device = pairs.mask.device
        tie = torch.tensor([self._tied(at, row) for at, row in enumerate(batch)], device=device)
        margin = torch.tensor([self._margin(at, row) for at, row in enumerate(batch)], device=device)
        label = torch.ones(len(batch), device=device) if pairs.label is None else pairs.label
        return Comparisons(pairs.chosen, pairs.rejected, pairs.mask, label, tie, margin)

    def _tied(self, at: int, row: Preference) -> bool:
        value = row.prompt.meta.get(self.tie)
        # As CSV files have it, too: the text "false" is not true.
        said = "" if value is None else str(value).strip().lower()
        if said not in (*YES, *NO):
            raise DataError(f"row {at} of the batch: '{self.tie}' is {value!r}; expected true or false.")
        return said in YES

    def _margin(self, at: int, row: Preference) -> float:
        value = row.prompt.meta.get(self.margin)
        if value in (None, ""):
            return 0.0
        lead = None if isinstance(value, bool) else number(value)
        if lead is None or lead < 0:
            raise DataError(
                f"row {at} of the batch: '{self.margin}' is {value!r}; expected the lead of the chosen output, a "
                "number of at least 0 (swap chosen and rejected where it is negative)."
            )
        return self.margin_scale * lead

    def weigh(self, mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
        """Every comparison alike."""
        return _weights.per_row(mask, mean)

    def loss(self, policy: Any, chunk: Comparisons, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Σ weight × loss of these comparisons."""
        chosen, rejected = _scores(policy, chunk.chosen, chunk.rejected)
        lead = chosen - rejected
        label = smoothed(chunk.label.to(lead), self.label_smoothing)
        value = comparison_loss(lead, chunk.margin.to(lead), label, chunk.tie, self.ties, self.tie_share)
        value = value + self.centre * centring(chosen, rejected)
        decided = chunk.mask & ~chunk.tie
        metrics = means(decided, margin__mean=lead, margin__accuracy=agreement(lead.detach(), chunk.label))
        metrics |= means(chunk.mask, score__chosen=chosen, score__rejected=rejected, score__loss=value)
        if chunk.weight is None:
            raise ValueError("the chunk has no weight; set it with `weigh` on the whole minibatch before splitting.")
        return (chunk.weight * value.where(chunk.mask, 0.0)).sum(), metrics


def _scores(policy: Any, chosen: Rollout, rejected: Rollout) -> tuple[Tensor, Tensor]:
    """Of both sides: in one forward pass, or, of pictures or sounds of two sizes, in two."""
    if len({_size(side.output) for side in (chosen, rejected)}) > 1:
        return policy.score(chosen), policy.score(rejected)
    first, second = policy.score(join([chosen, rejected])).chunk(2)
    return first, second


def _size(output: Any) -> tuple[int, ...]:
    """Of one output; () for texts."""
    media = output.samples if isinstance(output, Audio) else output
    return tuple(media.shape[1:]) if isinstance(media, Tensor) else ()


__all__ = ["BradleyTerry"]
