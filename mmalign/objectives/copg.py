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
independent halves of the draws, see `_preference.py`.

Reconstruction: the body of the paper was out of reach; the loss is its public form. `neighbours` pairs each output
once; `all_pairs` is the paper's sum over a group of k, at k - 1 times the cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.experience import Pairs
from mmalign.core.options import AtLeastOne, NotNegative
from mmalign.core.protocols import DensityPolicy, Mean, one_process
from mmalign.core.tensor import Tensor
from mmalign.core.types import Preference, Prompt
from mmalign.objectives import _weights
from mmalign.objectives._observing import number, observed, rows_read
from mmalign.objectives._pairs import BetaUnit, Head, compared, preference_loss, skipped
from mmalign.objectives._ranking import all_pairs, neighbours, pick
from mmalign.objectives._scoring import sample_groups, scored


@dataclass
class CoPG:
    """Sample (or read) outputs, and make differences of β ρ equal differences of the reward.

    `online: off` reads `Preference`s whose `meta` holds the two scores under `score_columns` (chosen, rejected).
    `draws` noise draws per output, an even number where the density is an estimate; `reference_rows` bounds the rows
    per no-gradient forward.
    """

    reward: Any = None
    online: Literal["off", "neighbours", "all_pairs"] = "neighbours"
    group_size: AtLeastOne = 4
    beta: NotNegative = 0.1
    beta_unit: BetaUnit = "sum"
    draws: AtLeastOne = 1
    score_columns: tuple[str, str] = ("chosen_score", "rejected_score")
    reference_rows: AtLeastOne = 16

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    def __post_init__(self) -> None:
        faults = self._head().faults()
        if self.online != "off" and self.reward is None:
            faults.append(
                f"online: {self.online} scores samples by a reward, and there is none; add one, or online: off."
            )
        if self.online != "off" and (self.group_size < 2 or (self.online == "neighbours" and self.group_size % 2)):
            faults.append(f"group_size: {self.group_size} does not make pairs; set an even number.")
        if faults:
            raise ConfigError(faults)

    @property
    def reads(self) -> frozenset[str]:
        """What batches may hold."""
        return rows_read(self.online)

    def collect(self, policy: Any, batch: Sequence[Any], rng: torch.Generator) -> Pairs:
        """Pairs with the gap of their scores, shared noise and the reference's terms."""
        pairs = self._offline(policy, batch) if self.online == "off" else self._online(policy, batch, rng)
        return compared(policy, pairs, self._head(), rng, self.over_ranks)

    def _online(self, policy: Any, batch: Sequence[Prompt], rng: torch.Generator) -> Pairs:
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = scored(self.reward, rollout)
        if self.online == "all_pairs":
            left, right, _ = all_pairs(scores.value, scores.valid, self.group_size)
        else:
            left, right, _ = neighbours(scores.value, scores.valid)
        return pick(rollout, left, right, scores.valid[left] & scores.valid[right], scores.value)

    def _offline(self, policy: Any, batch: Sequence[Any]) -> Pairs:
        pairs = observed(policy, batch, "copg with online: off", "online: neighbours")
        gaps = [self._gap(at, row) for at, row in enumerate(batch)]
        return replace(pairs, gap=torch.tensor(gaps, device=pairs.mask.device))

    def _gap(self, at: int, row: Preference) -> float:
        found = [row.prompt.meta.get(column) for column in self.score_columns]
        better, worse = (number(value) for value in found)
        if better is not None and worse is not None:
            return better - worse
        columns = " and ".join(self.score_columns)
        raise DataError(
            f"row {at} of the batch: copg needs numbers in the columns {columns}, found {found}; name them in "
            "score_columns, or set online."
        )

    def weigh(self, mask: Bool[Tensor, " B"], mean: Mean) -> Float[Tensor, " B"]:
        """Every valid pair alike."""
        return _weights.per_row(mask, mean)

    def counts(self, experience: Pairs) -> Mapping[str, Tensor]:
        """The share of pairs that are skipped."""
        return skipped(experience)

    def loss(self, policy: Any, chunk: Pairs, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Σ weight × loss of these pairs."""
        return preference_loss(policy, chunk, self._head())

    def _head(self) -> Head:
        return Head("copg", self.beta, self.beta_unit, draws=self.draws, rows=self.reference_rows)


__all__ = ["CoPG"]
