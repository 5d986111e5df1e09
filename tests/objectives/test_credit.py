"""Credit of steps in the preference loss, rewards of steps beside it: formulas, gradients, all modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Preference, Prompt
from mmalign.objectives import objectives
from mmalign.objectives._credit import (
    Credit,
    TokenReward,
    contrastive_estimate,
    dense_loss,
    ratio_estimate,
    step_reward,
)
from mmalign.objectives.dpo import DPO
from mmalign.policies.tokens import Tokens
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.objectives.driving import accumulate, alone, collect, gradient, moved, preferences, stream
from tests.objectives.gaussian_policy import GaussianPolicy

RNG = torch.Generator().manual_seed(0)
PAIRS = [
    Preference(Prompt("a red", meta={"bad": "two"}), "circle", "a blue square"),
    Preference(Prompt("two", meta={"bad": "a red"}), "blue squares and a star", "circle"),
    Preference(Prompt("a red", meta={"bad": "good"}), "a star", "square square"),
]


def table(rows: int = 4, steps: int = 3) -> torch.Tensor:
    return torch.randn(rows, steps, generator=RNG, dtype=torch.float64)


def test_the_contrastive_estimate_is_p_right_over_p_wrong_renormalised() -> None:
    """s = p⁺^(1+κ) / p⁻^κ over its sum; equal readers give their own probability; κ sharpens."""
    right, wrong = (torch.randn(2, 5, 7, generator=RNG, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(7, (2, 5), generator=RNG)
    p, q = right.softmax(-1), wrong.softmax(-1)
    odds = p**1.5 / q**0.5
    want = (odds / odds.sum(-1, keepdim=True)).gather(-1, tokens[..., None])[..., 0]
    assert torch.allclose(contrastive_estimate(right, wrong, tokens, 0.5), want)
    same = contrastive_estimate(right, right + 3, tokens, 2.0)  # a constant of logits means nothing
    assert torch.allclose(same, p.gather(-1, tokens[..., None])[..., 0])


def test_estimates_of_two_log_probs_by_hand() -> None:
    right, wrong = torch.tensor([[0.0, -1.0]]), torch.tensor([[0.0, -4.0]])
    assert torch.allclose(ratio_estimate(right, wrong, 2.0), torch.tensor([[0.5, 1 / (1 + 2.718281828**-6)]]))
    assert torch.allclose(step_reward(right, wrong), torch.tensor([[0.0, 1 / (1 + 2.718281828**-3) - 0.5]]))


def test_the_dense_loss_pulls_log_probs_by_their_rewards() -> None:
    log_prob = table().requires_grad_()
    reward = table().sigmoid() - 0.5
    beta = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    (slope,) = torch.autograd.grad(dense_loss(log_prob, reward, beta).sum(), log_prob)
    assert torch.allclose(slope, -beta[:, None] * reward)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "nca_pair", "sppo_hard"])
def test_credit_weighs_the_terms_of_the_margin(loss: Any) -> None:
    """Credit of 1 is no credit; credit c of all terms of both sides is β c; any split has the same gradient."""
    policy, objective = moved(GaussianPolicy(noisy=True, double=True)), DPO(beta=0.5, loss_type=loss, draws=4)
    pairs = collect(policy, objective, preferences(7))
    shape = pairs.ref_chosen.shape
    plain = gradient(policy, objective, pairs)
    ones = replace(pairs, credit_chosen=torch.ones(shape), credit_rejected=torch.ones(shape))
    assert torch.allclose(gradient(policy, objective, ones), plain)
    third = replace(pairs, credit_chosen=torch.full(shape, 0.3), credit_rejected=torch.full(shape, 0.3))
    scaled = DPO(beta=0.15, loss_type=loss, draws=4)
    assert torch.allclose(gradient(policy, objective, third), gradient(policy, scaled, pairs))
    uneven = replace(
        pairs, credit_chosen=torch.rand(shape, generator=RNG), credit_rejected=torch.rand(shape, generator=RNG)
    )
    whole = gradient(policy, objective, uneven)
    assert (whole - plain).norm() > 1e-3 * plain.norm()
    for rows in (1, 3):
        assert (gradient(policy, objective, uneven, rows) - whole).norm() <= 1e-10 * whole.norm()


def test_a_pairs_beta_multiplies_its_beta() -> None:
    policy = moved(GaussianPolicy(noisy=True, double=True))
    losses: list[Any] = ["sigmoid", "ipo", "kto", "bco_pair"]
    for loss in losses:
        objective = DPO(beta=0.5, loss_type=loss, draws=2)
        pairs = collect(policy, objective, preferences(6))
        doubled = replace(pairs, beta=torch.full((6,), 2.0))
        other = DPO(beta=1.0, loss_type=loss, draws=2)
        assert torch.allclose(gradient(policy, objective, doubled), gradient(policy, other, pairs))
        uneven = replace(pairs, beta=torch.linspace(1, 2, 6))
        whole = gradient(policy, objective, uneven)
        assert (gradient(policy, objective, uneven, 2) - whole).norm() <= 1e-10 * whole.norm()


def test_t_reg_is_the_formula_and_splits() -> None:
    """Of an estimate by noise draws, as of pictures and sounds: the loss by hand, w and r̂ without gradient."""
    policy = moved(GaussianPolicy(noisy=True, double=True))
    options = TokenReward(better="{prompt}", worse="{prompt}{prompt}", weight=0.5)
    plain, regular = DPO(beta=0.4, draws=3), DPO(beta=0.4, draws=3, token_reward=options)
    pairs = collect(policy, regular, preferences(5))
    assert pairs.dense_chosen.shape == (5, 3) and pairs.dense_chosen.abs().max() <= 0.5
    pairs.weight = plain.weigh(pairs.mask, alone)
    added = regular.loss(policy, pairs, stream())[0] - plain.loss(policy, pairs, stream())[0]
    up, down = (policy.log_prob(side, pairs.probe) for side in (pairs.chosen, pairs.rejected))
    lead = 0.4 * ((up - pairs.ref_chosen).sum(1) - (down - pairs.ref_rejected).sum(1))
    sides = -0.4 * (pairs.dense_chosen * up + pairs.dense_rejected * down).sum(1)
    assert torch.allclose(added, 0.5 * ((-lead).sigmoid() * sides).mean())
    whole = gradient(policy, regular, pairs)
    assert (whole - gradient(policy, plain, pairs)).norm() > 1e-3 * whole.norm()
    assert (gradient(policy, regular, pairs, 2) - whole).norm() <= 1e-10 * whole.norm()
    ungated = DPO(beta=0.4, draws=3, token_reward=replace(options, gated=False))
    added = ungated.loss(policy, pairs, stream())[0] - plain.loss(policy, pairs, stream())[0]
    assert torch.allclose(added, 0.5 * sides.mean())


@pytest.fixture(scope="module")
def readers(lm_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    other = write_tiny_lm(tmp_path_factory.mktemp("wrong") / "lm", "llama", seed=4)
    return {"right": str(lm_folder("llama")), "wrong": str(other)}


@pytest.mark.parametrize(("kind", "sides"), [("contrast", "both"), ("contrast", "rejected"), ("ratio", "both")])
def test_readers_weigh_tokens(kind: str, sides: str, readers: dict[str, str], lm: Callable[..., Any]) -> None:
    policy = Tokens(lm("llama", train="full"))
    credit = {**readers, "kind": kind, "sides": sides, "rows": 2}
    objective = objectives.build({"name": "dpo", "credit": credit}, "objective")
    pairs = collect(policy, objective, PAIRS)
    right, wrong = (reader.loaded for reader in (objective.readers.right, objective.readers.wrong))
    with torch.no_grad():
        lost = pairs.rejected
        if kind == "contrast":
            mixed = (2 * right.step_logits(lost) - wrong.step_logits(lost)).softmax(-1)
            s = mixed.gather(-1, lost.trajectory["tokens"][..., None])[..., 0]
        else:
            s = (right.log_prob(lost, {}) - wrong.log_prob(lost, {})).sigmoid()
    assert torch.allclose(pairs.credit_rejected[lost.mask], 1 - s[lost.mask], atol=1e-5)
    assert (pairs.credit_chosen is None) == (sides == "rejected")
    with torch.no_grad():
        for weight in policy.adapter.trainable().values():
            weight.add_(0.02)
    whole = gradient(policy, objective, pairs)
    assert (gradient(policy, objective, pairs, 1) - whole).norm() <= 1e-4 * whole.norm()


def test_t_reg_of_texts_reads_under_both_prompts(lm: Callable[..., Any]) -> None:
    policy = Tokens(lm("llama", train="full"))
    objective = DPO(token_reward=TokenReward(worse="{bad}"))
    pairs = collect(policy, objective, PAIRS)
    worse = [Prompt(pair.prompt.meta["bad"]) for pair in PAIRS]
    with torch.no_grad():
        good, bad = (policy.log_prob(replace(pairs.rejected, prompts=p), {}) for p in (pairs.rejected.prompts, worse))
    assert torch.allclose(pairs.dense_rejected, (good - bad).sigmoid() - 0.5, atol=1e-5)
    accumulate(policy, objective, pairs)
    with pytest.raises(CapabilityError, match="token_reward names the column 'bad', which this row has not"):
        collect(policy, objective, [Preference(Prompt("two"), "a star", "circle")])


def test_logits_give_the_log_probs(lm: Callable[..., Any]) -> None:
    policy = Tokens(lm("llama"), temperature=0.7)
    read = policy.observe([pair.prompt for pair in PAIRS], [pair.rejected for pair in PAIRS])
    with torch.no_grad():
        table = policy.step_logits(read).log_softmax(-1).gather(-1, read.trajectory["tokens"][..., None])[..., 0]
        assert torch.allclose(table.where(read.mask, 0.0), policy.log_prob(read, {}), atol=1e-5)


LATENT: dict[str, tuple[dict[str, Any], Any]] = {
    "pictures": (
        {"name": "sd3", "model": "assets/scenes_sd3", "max_sequence_length": 1, "text_encoder_3": False},
        "a red circle",
    ),
    "sounds": ({"name": "stable_audio_3", "model": "assets/tunes_sa3", "seconds": 2.048, "logsnr": [-3, 3]}, "a tune"),
}


@pytest.mark.parametrize("kind", LATENT)
def test_readers_weigh_the_draws_of_pictures_and_sounds(kind: str) -> None:
    """The real embedded generators: a reader against itself gives 1/2 everywhere; the probe is the pair's own."""
    from mmalign.adapters import load_adapter
    from mmalign.core.types import single_outputs
    from mmalign.policies.flow import Flow

    adapter, text = LATENT[kind]
    policy = Flow(load_adapter(**adapter, train="full", device="cpu"), noise_level=0, num_inference_steps=2)
    made = single_outputs(policy.generate([Prompt(text)] * 4, stream()).output)
    batch = [Preference(Prompt(text), made[i], made[i + 2]) for i in range(2)]
    reader = {"adapter": adapter, "policy": {"name": "flow", "noise_level": 0, "num_inference_steps": 2}}
    credit = {"right": reader, "wrong": reader, "kind": "ratio", "sides": "both"}
    objective = objectives.build({"name": "dpo", "draws": 3, "credit": credit}, "objective")
    pairs = collect(policy, objective, batch)
    assert torch.equal(pairs.credit_rejected, torch.full((2, 3), 0.5))
    with torch.no_grad():
        for weight in objective.readers.right.loaded.adapter.module.parameters():
            weight.mul_(1.01)
    pairs = collect(policy, objective, batch)
    right, wrong = (
        r.loaded.log_prob(pairs.chosen, pairs.probe) for r in (objective.readers.right, SimpleNamespace(loaded=policy))
    )
    assert torch.allclose(pairs.credit_chosen, (right - wrong).detach().sigmoid(), atol=1e-3)
    assert (pairs.credit_chosen - 0.5).abs().max() > 1e-3
    regular = DPO(draws=3, token_reward=TokenReward(worse="{prompt} two"))
    pairs = collect(policy, regular, batch)
    worse = replace(pairs.rejected, prompts=[Prompt(f"{text} two")] * 2)
    with torch.no_grad():
        good, bad = (policy.log_prob(side, pairs.probe) for side in (pairs.rejected, worse))
    assert torch.allclose(pairs.dense_rejected, (good - bad).sigmoid() - 0.5, atol=1e-3)
    whole = gradient(policy, regular, pairs)
    assert (gradient(policy, regular, pairs, 1) - whole).norm() <= 1e-4 * whole.norm()
    with pytest.raises(CapabilityError, match="contrast is over a vocabulary, which these outputs have not; set ratio"):
        collect(policy, objectives.build({"name": "dpo", "credit": {**credit, "kind": "contrast"}}, "objective"), batch)


def test_what_makes_no_sense_is_refused(readers: dict[str, str], lm_folder: Callable[..., Path], lm: Any) -> None:
    with pytest.raises(ConfigError, match=r"token_reward\.worse: is the better prompt"):
        TokenReward(worse="{prompt}")
    with pytest.raises(ConfigError, match=r"token_reward\.worse: is empty"):
        TokenReward()
    with pytest.raises(ConfigError, match=r"credit\.contrast: 0 must be positive"):
        Credit("a", "b", contrast=0)
    with pytest.raises(ConfigError, match=r"credit\.right: is empty"):
        objectives.build({"name": "dpo", "credit": {"right": "", "wrong": readers["wrong"]}}, "objective")
    with pytest.raises(ConfigError, match="is built from a run file"):
        DPO(credit=Credit(right=readers["right"], wrong=readers["wrong"]))
