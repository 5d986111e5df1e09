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

A row may say more in its own columns: `label` (P(chosen is better), default 1), a true `tie`, `margin`. Two terms of
features may stand beside it: `goals` (2407.13887, `_goals.py`) and `twins` (2401.06080, `_twins.py`). Left out: tie
strengths that are learned, critiques before the score (MM-RLHF), meta-learning (MetaRM), several dimensions at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.experience import Comparisons
from mmalign.core.options import NotNegative, Share, must, refuse
from mmalign.core.protocols import FeatureScorePolicy, Gather, Metrics, ScorePolicy
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.objectives import _weights
from mmalign.objectives._goals import Goals, goal_loss
from mmalign.objectives._pairs import pairs_of_preferences
from mmalign.objectives._preferences import Ties, centring, comparison_loss, finite_number, pair_accuracy, smooth_labels
from mmalign.objectives._rollouts import masked_means
from mmalign.objectives._sides import by_side, features_missing, several_by_side
from mmalign.objectives._tied import need_tied, tied
from mmalign.objectives._twins import Twins
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
        goals: adds a term by which the states of a partial output tell its end, see `_goals.py`.
        twins: adds a contrastive term of the features (SimCSE), see `_twins.py`.
    """

    ties: Ties = "half"
    tie_share: Share = 0.2
    tie: str = "tie"
    margin: str = "margin"
    margin_scale: NotNegative = 1.0
    centre: NotNegative = 0.0
    label_smoothing: Share = 0.0
    goals: Goals | None = None
    twins: Twins | None = None

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
        seeds = None if self.twins is None else torch.randint(1 << 62, (len(batch),), generator=rng).to(device)
        return Comparisons(
            chosen=pairs.chosen,
            rejected=pairs.rejected,
            mask=pairs.mask,
            label=label,
            tie=tie,
            margin=margin,
            places=None if self.goals is None else self.goals.places(len(batch), rng, device),
            seeds=seeds,
        )

    def check(self, setting: Setting) -> Iterator[str]:
        """What the adapter cannot do of what is asked."""
        if self.twins is not None or self.goals is not None:
            name = "twins" if self.goals is None else "goals"
            yield from features_missing(setting, f"objective.{name}")

    def tie_rows(
        self, policy: ScorePolicy, experience: Comparisons, rows: int, gather: Gather, rank: int
    ) -> Comparisons:
        """Return the weighted rows with what the term of twins needs of all the others, see `_tied.py`."""
        if self.twins is None or experience.seeds is None:
            return experience
        twins, reads = self.twins, _features(policy)

        def vectors(part: Comparisons) -> Tensor:
            return twins.vectors(*by_side(reads.features, [part.chosen, part.rejected]))

        held = tied(vectors, twins.losses, experience, {"twins": experience.seeds}, rows, gather, rank)
        return replace(experience, tied=held)

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
        sides, terms, features = self._read(policy, chunk)
        chosen, rejected = sides
        lead = chosen - rejected
        label = smooth_labels(chunk.label.to(lead), self.label_smoothing)
        value = comparison_loss(lead, chunk.margin.to(lead), label, chunk.tie, self.ties, self.tie_share)
        value = value + self.centre * centring(chosen, rejected)
        decided = chunk.mask & ~chunk.tie
        margins = {"margin/mean": lead, "margin/accuracy": pair_accuracy(lead.detach(), chunk.label)}
        scores = {"score/chosen": chosen, "score/rejected": rejected, "score/loss": value}
        total = _weights.weighted_sum(chunk, value)
        if self.goals is not None:
            total = total + self.goals.weight * _weights.weighted_sum(chunk, terms["contrast/goals"])
        if self.twins is not None:
            whole = need_tied(chunk.tied)
            held = _weights.weighted_sum(chunk, whole.loss) + whole.surrogate(self.twins.vectors(*features))
            total, terms = total + self.twins.weight * held, {**terms, **whole.seen}
        metrics = {**masked_means(decided, margins), **masked_means(chunk.mask, {**scores, **terms})}
        return total, metrics

    def _read(self, policy: ScorePolicy, chunk: Comparisons) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """The scores (B,) of both sides, the terms of each pair, and the features (B, D) of both where these count."""
        sides, terms, features = [chunk.chosen, chunk.rejected], {}, []
        scores: list[Tensor] = []
        if self.goals is not None:
            assert chunk.places is not None, "comparisons without places of goals; make them with `collect`"
            (up, good, own), (down, bad, other) = several_by_side(_features(policy).scored_states, sides)
            scores, terms = [up, down], {"contrast/goals": goal_loss(good, own, bad, other, chunk.places.to(good))}
        if self.twins is not None:
            scored = several_by_side(_features(policy).scored_features, sides)
            scores, features = scores or [score for score, _ in scored], [each for _, each in scored]
        return scores or by_side(policy.score, sides), terms, features


def _features(policy: ScorePolicy) -> FeatureScorePolicy:
    if not isinstance(policy, FeatureScorePolicy):
        raise CapabilityError(f"{type(policy).__name__} gives scores alone; goals and twins are of features.")
    return policy


__all__ = ["BradleyTerry"]
