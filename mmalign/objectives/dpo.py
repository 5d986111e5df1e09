"""Direct Preference Optimization, offline or online, for anything that can judge an output.

Papers: DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908); the
other losses with their papers are in `_preferences.py`. Winner term: CRPO of TangoFlux (Hung et al. 2024, arXiv
2412.21037).

    loss = -log σ(β (ρ_w - ρ_l)),   ρ = log π_θ - log π_ref;   the other forms are in `_preferences.py`

| method | options |
|---|---|
| conservative (cDPO) and robust DPO | label_smoothing: ε; loss_type: robust, label_smoothing: ε |
| length-normalised DPO, IPO as its authors run it | length_normalised: true |
| SimPO (2405.14734, eq. 6) | reference: false, length_normalised: true, beta: 2, margin: γ (1) |
| CPO (2401.08417) | reference: false, winner_weight: 1, winner_per: batch_token |
| ORPO (2403.07691) | loss_type: orpo, reference: false, length_normalised: true, beta: λ, with CPO's winner term |
| MPO (2411.10442), over 0.8 | also: {bco_pair: 0.25}, winner_weight: 1.25, winner_per: batch_token |
| KTO (2402.01306) | loss_type: kto, anchor: mismatched |
| RPO, DPO with an SFT term (2404.19733) | winner_weight: 1, winner_per: token |
| cDPO, critical tokens (2411.19943) | credit: {right: RUN, wrong: RUN} |
| T-REG (2412.02685) | token_reward: {worse: "{…}", weight: 0.25} |
| β by how far apart, MM-RLHF (2502.10391) | beta_of_gap: {weight: w, rate: k}: β (1 + w (1 - e^(-k gap))) |
| DNO (2404.03715) | online: all_pairs, label: gap, reference_every: n |

| symbol | here | meaning |
|---|---|---|
| w, l | `chosen`, `rejected` | the two outputs of a pair |
| ρ | sum over T of `log_prob` terms | exact for tokens, a denoising-error estimate for diffusion |
| (t, ε) | `probe` | noise and times; one draw serves policy, reference and both sides |
| β | `beta`, `beta_unit` | "sum": per nat of the joint; "mean": published diffusion values, over the event size |

Published β for diffusion (mean over latent elements, with the factor 1/2 of Salesforce's code): SD1.5 5000 (0.305 per
sum), SDXL 5000 (0.076); diffusers' script leaves out the 1/2, so its 2500 is 5000 here, and so does Diffusion-KTO
(2404.04465), whose β is doubled here too; flow DPO 100 to 2000.

CRPO's loss, -log σ(…) + E ‖v - v̂‖²_mean of the winner, is `beta_unit: mean, winner_weight: 2` (log p has a factor 1/2).

Online, the reward's best and worst (or all pairs) of `group_size` samples become the pair; equal scores and rows that
could not be scored are skipped, counted and weigh nothing. Reconstruction: online pairing for diffusion follows public
code (Flow-GRPO's DPO script), not a paper; unlike it, ties are skipped. Left out: KTO on sides of unequal size, losses
that sort the whole batch (AOT), divergences other than the reverse KL, weights by likelihood (WPO).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from mmalign.core.experience import Pairs
from mmalign.core.options import AtLeastOne, Count, Positive, must, refuse, requires
from mmalign.core.protocols import DensityPolicy
from mmalign.core.types import Prompt
from mmalign.objectives._credit import Credit, CreditReaders
from mmalign.objectives._gap import BetaOfGap, beta_of_gap, gaps, label_of_gap
from mmalign.objectives._moving_reference import MovingReference
from mmalign.objectives._pairs import PreferenceObjective, PreferenceOptions, pairs_of_preferences, rows_read
from mmalign.objectives._preferences import LossType
from mmalign.objectives._rollouts import sample_groups, score_rollout
from mmalign.objectives._selection import all_pairs, best_and_worst, pairs_of_rows


@dataclass
class DPO(PreferenceObjective, PreferenceOptions):
    """Raise chosen over rejected outputs relative to the frozen reference.

    Offline (`online: off`) batches are `Preference`s, whose `meta["label"]` may hold a soft label; online they are
    prompts and `reward` makes the pairs.

    Args:
        reward, online, group_size: how pairs are made of samples.
        loss_type, also: the preference loss, and further ones by weight.
        beta, beta_unit: its strength, per nat of the joint or in the published unit of diffusion.
        label_smoothing: the share of comparisons that are taken to be wrong, in [0, 0.5).
        draws: noise draws per output (an even number for squared losses).
        reference: judge log-ratios to the frozen reference, or log-probs.
        length_normalised: per token of each side.
        margin: by how much z must exceed 0 (SimPO's γ).
        winner_weight, winner_per: the chosen output's own -log p, per output, token, or token of the batch.
        desirable, undesirable, anchor: KTO's weights, and what its reference point is taken of.
        token_reward: a term of rewards per token that two prompts of one model give (T-REG).
        credit: how much single steps count in the margin, by two frozen readers (cDPO).
        label: "given", what the data say; "gap", σ(gap / gap_scale) of the two scores, as DNO labels its pairs.
        gap_scale: the unit of the gap in that label.
        gap_column: the column of given rows that holds the gap of their scores.
        beta_of_gap: makes β grow with the gap.
        reference_every: the reference becomes the policy as it is then every so many steps; 0: it stays the start.
        reference_rows: bounds the rows per no-gradient forward.
    """

    loss_type: LossType = field(default="sigmoid", kw_only=True)  # CoPG's own loss is none of DPO's
    reward: Any = None
    online: Literal["off", "best_worst", "all_pairs"] = "off"
    group_size: AtLeastOne = 4
    credit: Credit | None = None
    label: Literal["given", "gap"] = "given"
    gap_scale: Positive = 1.0
    gap_column: str = "gap"
    beta_of_gap: BetaOfGap | None = None
    reference_every: Count = 0
    make: Any = field(default=None, repr=False, compare=False)
    moving: MovingReference = field(init=False, repr=False, compare=False)
    readers: CreditReaders | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        online = self.online != "off"
        self.moving = MovingReference(self.reference_every)
        refuse(
            self.broken_rules(),
            must(self.gap_scale > 0, f"gap_scale: {self.gap_scale} must be positive."),
            requires(
                self.gap_scale != 1,
                self.label == "gap",
                "gap_scale: is the unit of the gap in a label; set label: gap.",
            ),
            requires(
                self.reference_every > 0,
                self.reference,
                "reference_every: moves a reference, and there is none; set reference: true.",
            ),
            requires(
                online,
                self.reward is not None,
                f"online: {self.online} ranks samples by a reward, and there is none; add one, or online: off.",
            ),
            requires(
                online,
                self.group_size >= 2,
                f"group_size: {self.group_size} leaves nothing to compare; set at least 2.",
            ),
        )
        self.readers = CreditReaders(self.make, self.credit) if self.credit is not None else None
        self.make = None

    @property
    def preference(self) -> PreferenceOptions:
        """The preference loss, of which this objective's own options are all the fields."""
        return self

    @property
    def reads(self) -> frozenset[str]:
        """The kinds of rows that batches may hold: "prompts", "preferences" or "examples", as the options say."""
        return rows_read(self.online)

    def collect(self, policy: DensityPolicy, batch: Sequence[Any], rng: torch.Generator) -> Pairs:
        """Pairs with noise and reference terms; from preferences, or from samples of the policy and the reward."""
        if self.online == "off":
            pairs = pairs_of_preferences(policy, batch, "dpo with online: off", "online: best_worst")
            pairs = replace(pairs, gap=gaps(batch, self.gap_column, self._needs_gap, pairs.mask.device))
        else:
            pairs = self._online(policy, batch, rng)
        pairs = self.with_reference(self.moving.anchored(policy), self._of_gap(pairs), rng)
        return pairs if self.readers is None else self.readers.weighed(pairs)

    def prepare(self) -> None:
        """Load the readers of credit, before anything else is."""
        if self.readers is not None:
            self.readers.prepare()

    def check_data(self, prompt: Prompt) -> None:
        """Raise DataError where an option reads a gap that the row has not; asked of every row before the start."""
        if self.online == "off" and self._needs_gap:
            gaps([prompt], self.gap_column, True, "cpu")

    def state_dict(self) -> dict[str, Any]:
        """Return the reference that moved, and how many steps ago."""
        return self.moving.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.moving.load_state_dict(state)

    @property
    def _needs_gap(self) -> bool:
        return self.label == "gap" or self.beta_of_gap is not None

    def _of_gap(self, pairs: Pairs) -> Pairs:
        """The pairs with what follows from their gaps: a label, and what β is multiplied with."""
        gap, beta = pairs.gap, self.beta_of_gap
        if gap is None:
            return pairs
        if self.label == "gap":
            pairs = replace(pairs, label=label_of_gap(gap, self.gap_scale))
        return pairs if beta is None else replace(pairs, beta=beta_of_gap(gap, beta.weight, beta.rate))

    def _online(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> Pairs:
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = score_rollout(self.reward, rollout)
        ranking = best_and_worst if self.online == "best_worst" else all_pairs
        return pairs_of_rows(rollout, *ranking(scores.value, scores.valid, self.group_size), scores.value)


__all__ = ["DPO"]
