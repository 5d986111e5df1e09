"""Every loss shared with TRL: equal values and gradients on one model and batch, in float32.

Known differences, by decision: our weights count only rows that train (TRL counts dead groups and unscorable rows);
group spreads are population ones (TRL's are √(G/(G-1)) larger); IPO and SPPO are times β²; TRL's unpaired APO is a mean
over outputs, ours over pairs; ORPO's own log-likelihood covers the completion, TRL's also the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.experience import Transitions
from mmalign.core.types import Preference, Prompt, Scores
from mmalign.objectives._rollouts import recompute_steps
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.sft import SFT
from mmalign.policies.tokens import Tokens
from tests.objectives.driving import alone, stream
from tests.objectives.trl_peer import FusedHead, peer, plain_log_probs, sequences

pytest.importorskip("trl")

STEPS = 6
ASKED = [Prompt(text) for text in ("a b c", "d", "red cube", "two dogs asleep")]
PAIRS = [
    Preference(ASKED[0], "good cube", "bad"),
    Preference(ASKED[1], "a", "d e f a b"),
    Preference(ASKED[2], "two dogs asleep", "bad bad bad"),
]


@dataclass
class Stand:
    """One policy in three states: `reference` at its start, `old` when it sampled, and now."""

    policy: Any
    batch: Transitions

    @property
    def model(self) -> Any:
        return self.policy.adapter.network.model

    def compare(self, ours: Tensor, theirs: Tensor) -> None:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        mine = torch.autograd.grad(ours, weights, retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(theirs, weights, allow_unused=True)
        flat, want = (torch.cat([g.flatten() for g in grads if g is not None]) for grads in (mine, other))
        assert abs(float(ours.detach()) - float(theirs.detach())) <= 1e-5 * max(1.0, abs(float(theirs.detach())))
        assert want.norm() > 1e-4 and (flat - want).norm() <= 2e-5 * want.norm()


def shifted(policy: Any, seed: int) -> None:
    """An update, as large as some clipped ratios need."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.adapter.trainable().values():
            weight += 0.02 * torch.randn(weight.shape, generator=rng)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    from mmalign.adapters.language.causal_lm import CausalLM
    from tests.adapters.language.tiny_lm import write_tiny_lm

    folder = write_tiny_lm(tmp_path_factory.mktemp("parity") / "llama", "llama")
    policy = Tokens(CausalLM(str(folder), train="full", device="cpu", chat=False).load(), max_new_tokens=STEPS)
    shifted(policy, 1)
    rollout = policy.sample([p for p in ASKED for _ in range(2)], stream(3))
    with policy.reference():
        ref = recompute_steps(policy, rollout, 16, moments=False)
    advantage = torch.randn(8, 1, generator=stream(4))
    old = recompute_steps(policy, rollout, 16, moments=False)
    shifted(policy, 2)
    scores = Scores.of(torch.zeros(8), parts={"dropped": torch.zeros(8), "live": torch.ones(8)})
    return Stand(
        policy, Transitions(rollout=rollout, advantage=advantage, mask=rollout.mask, old=old, ref=ref, scores=scores)
    )


def left_padded(policy: Any, rows: list[Prompt]) -> tuple[Tensor, Tensor]:
    ids = [inputs["input_ids"] for inputs in policy.adapter.encode(rows)]
    width = max(map(len, ids))
    out = torch.stack([torch.cat([torch.zeros(width - len(i), dtype=torch.long), i]) for i in ids])
    return out, torch.stack([torch.arange(width) >= width - len(i) for i in ids])


STEP_LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, {"loss_type": "grpo"}),
    "grpo with KL": ({"beta": 0.3}, {"loss_type": "grpo", "beta": 0.3}),
    "two-sided clip": ({"ratio_cap": 1.3}, {"loss_type": "grpo", "delta": 1.3}),
    "bnpo": ({"weighting": "per_step"}, {"loss_type": "bnpo"}),
    "dr_grpo": ({"weighting": "constant", "horizon": STEPS}, {"loss_type": "dr_grpo", "max_completion_length": STEPS}),
    "dapo": ({"clip_high": 0.28, "weighting": "per_step"}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (
        {"ratio": "sequence", "clip": 0.03, "clip_high": 0.04},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.03, "epsilon_high": 0.04},
    ),
    "luspo": (
        {"ratio": "sequence", "weighting": "constant"},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ),
    "cispo": (
        {"surrogate": "cispo", "clip": 1.0, "clip_high": 0.2, "weighting": "per_step"},
        {"loss_type": "cispo", "epsilon_high": 1.2},
    ),
    "sapo": ({"surrogate": "sapo"}, {"loss_type": "sapo"}),
    "vespo": ({"surrogate": "vespo", "ratio": "joint", "weighting": "per_step"}, {"loss_type": "vespo"}),
}


@pytest.mark.parametrize(("options", "theirs"), STEP_LOSSES.values(), ids=STEP_LOSSES.keys())
def test_policy_gradient_losses(stand: Stand, options: dict[str, Any], theirs: dict[str, Any]) -> None:
    from trl import GRPOTrainer

    objective = GRPO(None, group_size=2, **options)
    batch = replace(stand.batch, weight=objective.weigh(stand.batch.mask, alone))
    batch = batch if objective.beta else replace(batch, ref=None)
    loss, metrics = objective.loss(stand.policy, batch, stream())
    trainer = peer(stand.model, get_gamma_weights=GRPOTrainer.get_gamma_weights, **theirs)
    want = GRPOTrainer._compute_loss(trainer, stand.model, trl_batch(stand))
    stand.compare(loss, want)
    if objective.surrogate == "clip":
        assert float(metrics["ratio/clipped"]) > 0  # the clip is part of what is compared


def trl_batch(stand: Stand) -> dict[str, Tensor]:
    batch = stand.batch
    ids, mask = left_padded(stand.policy, batch.rollout.prompts)
    return {
        "prompt_ids": ids,
        "prompt_mask": mask.long(),
        "completion_ids": batch.rollout.trajectory["tokens"],
        "completion_mask": batch.mask.long(),
        "advantages": batch.advantage[:, 0],
        "old_per_token_logps": batch.old.log_prob,
        "ref_per_token_logps": batch.ref.log_prob,
        "num_items_in_batch": batch.mask.sum(),
        "old_logps": batch.old.log_prob.sum(1),
    }


def test_rloo(stand: Stand) -> None:
    from trl import RLOOTrainer

    objective = GRPO(None, group_size=2, ratio="joint", baseline="leave_one_out", std="none")
    batch = replace(stand.batch, ref=None, weight=objective.weigh(stand.batch.mask, alone))
    given = trl_batch(stand) | {"advantages": stand.batch.advantage[:, 0]}
    want = RLOOTrainer._compute_loss(peer(stand.model), stand.model, given)
    stand.compare(objective.loss(stand.policy, batch, stream())[0], want)


BETA = 0.4
NORMAL: dict[str, Any] = {"length_normalised": True}
PAIR_LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "sigmoid": ({}, {}, 1.0),
    "hinge": ({"loss_type": "hinge"}, {}, 1.0),
    "ipo": ({"loss_type": "ipo", **NORMAL}, {}, BETA**2),
    "exo_pair": ({"loss_type": "exo_pair", "label_smoothing": 0.1}, {"label_smoothing": 0.1}, 1.0),
    "nca_pair": ({"loss_type": "nca_pair"}, {}, 1.0),
    "robust": ({"loss_type": "robust", "label_smoothing": 0.1}, {"label_smoothing": 0.1}, 1.0),
    "bco_pair": ({"loss_type": "bco_pair"}, {}, 1.0),
    "sppo_hard": ({"loss_type": "sppo_hard"}, {}, BETA**2),
    "apo_zero": ({"loss_type": "apo_zero"}, {}, 1.0),
    "apo_down": ({"loss_type": "apo_down"}, {}, 1.0),
    "discopop": ({"loss_type": "discopop"}, {}, 1.0),
    "sigmoid_norm": (NORMAL, {}, 1.0),
    "sigmoid and sft": (
        {"winner_weight": 0.7, "winner_per": "batch_token"},
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
        1.0,
    ),
    "mpo": (
        {"also": {"bco_pair": 0.25}, "winner_weight": 1.25, "winner_per": "batch_token"},
        {"loss_types": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        0.8,  # of a sum that TRL weighs 0.8, 0.2, 1
    ),
}


def judged(stand: Stand, side: str) -> tuple[dict[str, Tensor], Tensor]:
    """TRL's batch of one side of PAIRS, and the reference's log-probs of it, the plain way."""
    prompts = [inputs["input_ids"] for inputs in stand.policy.adapter.encode([p.prompt for p in PAIRS])]
    tokens, mask = stand.policy.adapter.tokenize([getattr(p, side) for p in PAIRS])
    made = dict(sequences(prompts, tokens, mask, stand.policy.adapter.pad_id))
    with stand.policy.reference(), torch.no_grad():
        said = plain_log_probs(stand.model, made["input_ids"], made["attention_mask"])[0]
    return made, (said * made["completion_mask"][:, 1:]).sum(1)


def both_sides(stand: Stand) -> dict[str, Tensor]:
    (good, ref_good), (bad, ref_bad) = judged(stand, "chosen"), judged(stand, "rejected")
    width = max(good["input_ids"].shape[1], bad["input_ids"].shape[1])
    pad: Callable[[Tensor], Tensor] = lambda x: torch.nn.functional.pad(x, (0, width - x.shape[1]))  # noqa: E731
    joined = {name: torch.cat([pad(good[name]), pad(bad[name])]) for name in good}
    return joined | {"ref_chosen_logps": ref_good, "ref_rejected_logps": ref_bad}


def ours(stand: Stand, objective: Any, **changes: Any) -> Tensor:
    pairs = replace(objective.collect(stand.policy, PAIRS, stream()), **changes)
    pairs.weight = objective.weigh(pairs.mask, alone)
    return objective.loss(stand.policy, pairs, stream())[0]


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_preference_losses(stand: Stand, name: str) -> None:
    from trl import DPOTrainer

    options, theirs, scale = PAIR_LOSSES[name]
    settings = {"loss_types": [name], "loss_weights": [1.0], "beta": BETA, **theirs}
    trainer = peer(stand.model, **settings)
    want = DPOTrainer._compute_loss(trainer, FusedHead(stand.model), both_sides(stand), False)
    factor = {"mpo": 1 / scale}.get(name, scale)
    stand.compare(ours(stand, DPO(beta=BETA, **options)), factor * want)


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_unpaired_losses(stand: Stand, kind: str) -> None:
    """KTO's reference point from mismatched prompts and outputs; both class weights."""
    from trl import KTOTrainer

    given = both_sides(stand)
    given["ref_logps"] = torch.cat([given.pop("ref_chosen_logps"), given.pop("ref_rejected_logps")])
    given["label"] = torch.tensor([True] * len(PAIRS) + [False] * len(PAIRS))
    prompts = [inputs["input_ids"] for inputs in stand.policy.adapter.encode([p.prompt for p in PAIRS])]
    tokens, mask = stand.policy.adapter.tokenize([p.chosen for p in PAIRS])
    strange = sequences([*prompts[1:], *prompts[:1]], tokens, mask, stand.policy.adapter.pad_id)

    def total() -> Tensor:
        said = plain_log_probs(stand.model, strange["input_ids"], strange["attention_mask"])[0]
        return (said * strange["completion_mask"][:, 1:]).sum(1).detach()

    with stand.policy.reference():
        given["ref_KL_logps"] = total()
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5} if kind == "kto" else {}
    trainer = peer(stand.model, loss_type=kind, beta=BETA, _compute_kl_logps=lambda *_: total(), **weights)
    want = KTOTrainer._compute_loss(trainer, FusedHead(stand.model), given, False)
    if kind == "kto":
        stand.compare(
            ours(stand, DPO(loss_type="kto", beta=BETA, anchor="mismatched", desirable=1.5, undesirable=0.5)), want
        )
    else:
        stand.compare(
            ours(stand, DPO(loss_type="apo_zero", beta=BETA)), 2 * want
        )  # a mean over outputs, not over pairs


REFERENCE_FREE: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "sigmoid": ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}, 1.0),
    "hinge": ({"loss_type": "hinge"}, {}, 1.0),
    "ipo": ({"loss_type": "ipo", **NORMAL}, {}, BETA**2),
    "simpo": ({"margin": 0.5, **NORMAL}, {"simpo_gamma": 0.5}, 1.0),
}


def halves(values: Tensor) -> list[Any]:
    """The chosen ones, and the rejected ones."""
    return [*values.chunk(2)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*REFERENCE_FREE, "orpo"])
def test_losses_without_a_reference(stand: Stand, name: str) -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    given = both_sides(stand)
    said = (
        plain_log_probs(stand.model, given["input_ids"], given["attention_mask"])[0] * given["completion_mask"][:, 1:]
    )
    total, count = said.sum(1), given["completion_mask"].sum(1)
    if name == "orpo":
        losses = ORPOTrainer.odds_ratio_loss(peer(stand.model, beta=BETA), *halves(total / count))[0]
        objective = DPO(
            loss_type="orpo", reference=False, beta=BETA, winner_weight=1.0, winner_per="batch_token", **NORMAL
        )
        own = said[: len(PAIRS)].sum() / count[: len(PAIRS)].sum()
        stand.compare(ours(stand, objective), -own - losses.mean())
        return
    options, theirs, scale = REFERENCE_FREE[name]
    trainer = peer(stand.model, loss_type=name, beta=BETA, **theirs)
    scores = total / count if name in ("ipo", "simpo") else total
    want = CPOTrainer.cpo_loss(trainer, *halves(scores))[0].mean()
    stand.compare(ours(stand, DPO(beta=BETA, reference=False, **options)), scale * want)


def test_imitation_is_the_models_own_loss(stand: Stand) -> None:
    """What TRL's SFT trainer minimises: transformers' token mean over completions."""
    given, _ = judged(stand, "chosen")
    labels = given["input_ids"].masked_fill(given["completion_mask"] == 0, -100)
    want = stand.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels).loss
    stand.compare(ours(stand, SFT(per="batch_token")), want)
