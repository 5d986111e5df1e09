"""Contrastive Policy Gradient: regress the log-ratio's difference on the reward's, whoever wrote the outputs.

Paper: Flet-Berliac et al. 2024, "Contrastive Policy Gradient" (arXiv 2406.19185).

    loss = ½ (R - R' - β (ρ - ρ'))²,   ρ = log π_θ - log π_ref, of two outputs of one prompt

| symbol | here | meaning |
|---|---|---|
| R, R' | `reward`, or two columns of a preference row | any scores; only their difference counts |
| ρ | sum over T of `log_prob` terms | under the current weights in every update, never frozen |
| β | `beta`, `beta_unit` | the KL's price: the optimum is π_ref e^(R/β) |

No importance ratio, no clip: the optimum is the same for any behaviour policy with support, so old and foreign outputs
may be used, and at the optimum the gradient has no noise. On fresh samples the expected gradient is 2β times that of
RLOO with the KL in its reward (divide a learning rate from there by 2β). Equal rewards teach too (their log-ratios
should agree), so nothing is skipped but rows without a score. For noisy densities the square is taken of two
independent halves of the draws, see `_preferences.py`.

Reconstruction: the body of the paper was out of reach; the loss is its public form. `neighbours` pairs each output
once; `all_pairs` is the paper's sum over a group of k, at k - 1 times the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from mmalign.core.errors import DataError
from mmalign.core.experience import Pairs
from mmalign.core.options import AtLeastOne, NotNegative, refuse, requires
from mmalign.core.protocols import DensityPolicy
from mmalign.core.types import Preference, Prompt
from mmalign.objectives._pairs import (
    BetaUnit,
    PreferenceObjective,
    PreferenceOptions,
    pairs_of_preferences,
    rows_read,
)
from mmalign.objectives._preferences import finite_number
from mmalign.objectives._rollouts import sample_groups, score_rollout
from mmalign.objectives._selection import all_pairs, neighbours, pairs_of_rows


@dataclass
class CoPG(PreferenceObjective):
    """Sample (or read) outputs, and make differences of β ρ equal differences of the reward.

    Args:
        reward: scores the outputs; only differences of its values count.
        online: "off" reads preferences with two scores; "neighbours" samples outputs and pairs each once, "all_pairs"
            every two of a group.
        group_size: outputs per prompt.
        beta: the price of the KL from the reference, in units of the reward.
        beta_unit: "sum", per nat of the joint density, or "mean", per nat of its mean over dimensions.
        draws: noise samples per output, an even number where the density is an estimate.
        score_columns: the columns of the scores of the chosen and of the rejected output (`online: off`).
        reference_rows: rows per forward without gradient.
    """

    reward: Any = None
    online: Literal["off", "neighbours", "all_pairs"] = "neighbours"
    group_size: AtLeastOne = 4
    beta: NotNegative = 0.1
    beta_unit: BetaUnit = "sum"
    draws: AtLeastOne = 1
    score_columns: tuple[str, str] = ("chosen_score", "rejected_score")
    reference_rows: AtLeastOne = 16

    def __post_init__(self) -> None:
        online = self.online != "off"
        refuse(
            self.preference.broken_rules(),
            requires(
                online,
                self.reward is not None,
                f"online: {self.online} scores samples by a reward, and there is none; add one, or online: off.",
            ),
            requires(
                online,
                self.group_size >= 2 and (self.online != "neighbours" or self.group_size % 2 == 0),
                f"group_size: {self.group_size} does not make pairs; set an even number.",
            ),
        )

    @property
    def reads(self) -> frozenset[str]:
        """The kinds of rows that batches may hold: "prompts", "preferences" or "examples", as the options say."""
        return rows_read(self.online)

    def collect(self, policy: DensityPolicy, batch: Sequence[Any], rng: torch.Generator) -> Pairs:
        """Pairs with the gap of their scores, shared noise and the reference's terms."""
        pairs = self._offline(policy, batch) if self.online == "off" else self._online(policy, batch, rng)
        return self.with_reference(policy, pairs, rng)

    def _online(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Pairs:
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = score_rollout(self.reward, rollout)
        if self.online == "all_pairs":
            left, right, _ = all_pairs(scores.value, scores.valid, self.group_size)
        else:
            left, right, _ = neighbours(scores.value, scores.valid)
        return pairs_of_rows(rollout, left, right, scores.valid[left] & scores.valid[right], scores.value)

    def _offline(self, policy: DensityPolicy, batch: Sequence[Any]) -> Pairs:
        pairs = pairs_of_preferences(policy, batch, "copg with online: off", "online: neighbours")
        gaps = [self._gap(at, row) for at, row in enumerate(batch)]
        return replace(pairs, gap=torch.tensor(gaps, device=pairs.mask.device))

    def _gap(self, at: int, row: Preference) -> float:
        entries = [row.prompt.meta.get(column) for column in self.score_columns]
        better, worse = (finite_number(entry) for entry in entries)
        if better is not None and worse is not None:
            return better - worse
        columns = " and ".join(self.score_columns)
        raise DataError(
            f"row {at} of the batch: copg needs numbers in the columns {columns}, found {entries}; name them in "
            "score_columns, or set online."
        )

    @property
    def preference(self) -> PreferenceOptions:
        """CoPG's squared loss at `beta`, per nat of the joint log-prob or per dimension (`beta_unit`)."""
        return PreferenceOptions(
            loss_type="copg",
            beta=self.beta,
            beta_unit=self.beta_unit,
            draws=self.draws,
            reference_rows=self.reference_rows,
        )


__all__ = ["CoPG"]
