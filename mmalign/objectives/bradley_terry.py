"""A reward model from comparisons: the score whose differences best explain which output was preferred.

Papers: Bradley & Terry 1952; reward models of language, Stiennon et al. 2020 (arXiv 2009.01325, eq. 1); margin, Llama 2
(2307.09288, eq. 2); ties, Rao & Kupper 1967 and Davidson 1970, see `_preferences.py`; centring, Eisenstein et al. 2023
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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.core.errors import DataError
from mmalign.core.experience import Comparisons
from mmalign.core.options import NotNegative, Share, must, refuse
from mmalign.core.protocols import Metrics, ScorePolicy
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout, join
from mmalign.objectives import _weights
from mmalign.objectives._pairs import pairs_of_preferences
from mmalign.objectives._preferences import Ties, centring, comparison_loss, finite_number, pair_accuracy, smooth_labels
from mmalign.objectives._rollouts import masked_means
from mmalign.objectives._weights import RowsAlike

YES, NO = ("true", "1", "1.0"), ("", "false", "0", "0.0")


@dataclass
class BradleyTerry(RowsAlike):
    """Fit a reward model's scores to preferences.

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
        refuse(
            must(0 < self.tie_share < 1, f"tie_share: {self.tie_share} is not in (0, 1)."),
            must(self.margin_scale >= 0, f"margin_scale: {self.margin_scale} must be at least 0."),
            must(self.centre >= 0, f"centre: {self.centre} must be at least 0."),
            must(0 <= self.label_smoothing < 0.5, f"label_smoothing: {self.label_smoothing} is not in [0, 0.5)."),
        )

    def collect(self, policy: ScorePolicy, batch: Sequence[Any], rng: torch.Generator) -> Comparisons:
        """Return the comparisons of the data as pairs; nothing is sampled, and no reference is read."""
        pairs = pairs_of_preferences(policy, batch, "bradley_terry", "data: {name: preferences, …}")
        device = pairs.mask.device
        rows = [(row.prompt.place or f"row {at} of the batch", row.prompt) for at, row in enumerate(batch)]
        tie = torch.tensor([self._tied(*row) for row in rows], device=device)
        margin = torch.tensor([self._margin(*row) for row in rows], device=device)
        label = torch.ones(len(batch), device=device) if pairs.label is None else pairs.label
        return Comparisons(
            chosen=pairs.chosen, rejected=pairs.rejected, mask=pairs.mask, label=label, tie=tie, margin=margin
        )

    def check_data(self, prompt: Prompt) -> None:
        """Raise DataError where a row's columns cannot be read; asked of every row before anything is loaded."""
        place = prompt.place or f"'{prompt.text[:40]}'"
        self._tied(place, prompt)
        self._margin(place, prompt)

    def _tied(self, place: str, prompt: Prompt) -> bool:
        value = prompt.meta.get(self.tie)
        # As CSV files have it, too: the text "false" is not true.
        text = "" if value is None else str(value).strip().lower()
        if text not in (*YES, *NO):
            raise DataError(f"{place}: '{self.tie}' is {value!r}; expected true or false.")
        return text in YES

    def _margin(self, place: str, prompt: Prompt) -> float:
        value = prompt.meta.get(self.margin)
        if value in (None, ""):
            return 0.0
        lead = None if isinstance(value, bool) else finite_number(value)
        if lead is None or lead < 0:
            raise DataError(
                f"{place}: '{self.margin}' is {value!r}; expected the lead of the chosen output, a number of at least "
                "0 (swap chosen and rejected where it is negative)."
            )
        return self.margin_scale * lead

    def loss(self, policy: ScorePolicy, chunk: Comparisons, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × `comparison_loss` of these comparisons, plus `centre`'s term, with gradient; and its metrics."""
        chosen, rejected = _scores(policy, chunk.chosen, chunk.rejected)
        lead = chosen - rejected
        label = smooth_labels(chunk.label.to(lead), self.label_smoothing)
        value = comparison_loss(lead, chunk.margin.to(lead), label, chunk.tie, self.ties, self.tie_share)
        value = value + self.centre * centring(chosen, rejected)
        decided = chunk.mask & ~chunk.tie
        margins = {"margin/mean": lead, "margin/accuracy": pair_accuracy(lead.detach(), chunk.label)}
        scores = {"score/chosen": chosen, "score/rejected": rejected, "score/loss": value}
        metrics = {**masked_means(decided, margins), **masked_means(chunk.mask, scores)}
        return _weights.weighted_sum(chunk, value), metrics


def _scores(policy: ScorePolicy, chosen: Rollout, rejected: Rollout) -> tuple[Tensor, Tensor]:
    """The scores (B,) of both sides: from one forward pass, or from two where images or sounds differ in size."""
    if len({_size(side.output) for side in (chosen, rejected)}) > 1:
        return policy.score(chosen), policy.score(rejected)
    first, second = policy.score(join([chosen, rejected])).chunk(2)
    return first, second


def _size(output: object) -> tuple[int, ...]:
    """The shape of one output; () for texts."""
    media = output.samples if isinstance(output, Audio) else output
    return tuple(media.shape[1:]) if isinstance(media, Tensor) else ()


__all__ = ["BradleyTerry"]
