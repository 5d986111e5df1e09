"""Distillation beyond two experts: the paper's formulas by hand, gradients, and policies that reach their teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt
from mmalign.objectives import objectives
from mmalign.objectives.distill import extrapolated, kl_from_teacher, teacher_of_tokens
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.objectives.driving import accumulate, collect, gradient, learn, stream

RNG = torch.Generator().manual_seed(0)
TEXTS = [Prompt("a red"), Prompt("two blue")]


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


def test_the_teacher_is_the_experts_product_of_powers() -> None:
    """softmax(z⁺ + w (z⁺ - z⁻)) ∝ p⁺^(1+w) / p⁻^w, w = 15 Σ|p⁺ - p⁻| + 0.001, and the pull β / w."""
    better, worse = logits(4, 6), logits(4, 6)
    teacher, pull = teacher_of_tokens(better, worse, 15.0, 0.1)
    p, q = better.softmax(-1), worse.softmax(-1)
    w = 15 * (p - q).abs().sum(-1) + 1e-3
    powers = p ** (1 + w[:, None]) / q ** w[:, None]
    assert torch.allclose(teacher.exp(), powers / powers.sum(-1, keepdim=True))
    assert torch.allclose(pull, 0.1 / w)
    same, pull = teacher_of_tokens(better, better, 15.0, 0.1)
    assert torch.allclose(same.exp(), p) and torch.allclose(pull, torch.full((4,), 100.0, dtype=torch.float64))
    assert torch.allclose(teacher_of_tokens(better, worse, 0.0, 0.1)[0].exp(), p)


def test_at_weight_one_the_teacher_is_the_optimum_of_the_token_reward() -> None:
    """max_π E_π[β log p⁺/p⁻] - β KL(π ‖ p⁺) has π* ∝ p⁺ · p⁺/p⁻: the paper's equivalence, at w = 1."""
    better, worse = logits(5).log_softmax(0), logits(5).log_softmax(0)
    free = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [free], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        own = free.log_softmax(0)
        loss = -(own.exp() * ((better - worse) - (own - better))).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(free.softmax(0), extrapolated(better, worse, 1.0).softmax(0), atol=1e-6)


def test_the_kl_is_that_of_torch_and_0_at_the_teacher() -> None:
    own, teacher = logits(3, 4, 7), logits(3, 4, 7).log_softmax(-1)
    want = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=own), torch.distributions.Categorical(logits=teacher)
    )
    assert torch.allclose(kl_from_teacher(own, teacher), want)
    assert kl_from_teacher(teacher + 2, teacher).abs().max() < 1e-12


@pytest.fixture(scope="module")
def experts(lm_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folders = [write_tiny_lm(tmp_path_factory.mktemp(f"expert{seed}") / "lm", "llama", seed=seed) for seed in (4, 5)]
    return {"better": str(folders[0]), "worse": str(folders[1])}


def test_a_language_model_reaches_its_teacher(experts: dict[str, str], lm: Callable[..., Any]) -> None:
    policy = Tokens(lm("llama", train="full"), max_new_tokens=4)
    objective = objectives.build({"name": "distill", **experts, "reach": 1.0, "beta": 1.0, "rows": 3}, "objective")
    experience = collect(policy, objective, TEXTS * 3)
    assert experience.teacher.shape[:2] == experience.mask.shape and experience.pull[~experience.mask].eq(0).all()
    whole = gradient(policy, objective, experience)
    assert (gradient(policy, objective, experience, 2) - whole).norm() <= 1e-4 * whole.norm()
    before = accumulate(policy, objective, experience)["distill/distance"]
    learn(policy, objective, TEXTS * 8, steps=25, lr=0.01)
    assert accumulate(policy, objective, collect(policy, objective, TEXTS * 3))["distill/distance"] < 0.5 * before


LATENT: dict[str, tuple[dict[str, Any], str]] = {
    "pictures": (
        {"name": "sd3", "model": "assets/scenes_sd3", "max_sequence_length": 1, "text_encoder_3": False},
        "a red circle",
    ),
    "sounds": ({"name": "stable_audio_3", "model": "assets/tunes_sa3", "seconds": 2.048, "logsnr": [-3, 3]}, "a tune"),
}


@pytest.mark.parametrize("kind", LATENT)
def test_pictures_and_sounds_are_pulled_beyond_both_experts(kind: str) -> None:
    """The real embedded generators: the target is ε⁺ + w (ε⁺ - ε⁻) at the policy's own noise; any split is the same."""
    from mmalign.adapters import load_adapter

    adapter, text = LATENT[kind]
    options = {"noise_level": 0, "num_inference_steps": 2}
    policy = Flow(load_adapter(**adapter, train="full", device="cpu"), **options)  # type: ignore[arg-type]
    expert = {"adapter": adapter, "policy": {"name": "flow", **options}}
    spec = {"name": "distill", "better": expert, "worse": expert, "reach": 0.5, "beta": 1.0, "draws": 2}
    objective = objectives.build(spec, "objective")
    prompts = [Prompt(text), Prompt(f"{text} too")]
    with torch.no_grad():
        for weight in objective.experts[1].loaded.adapter.module.parameters():
            weight.mul_(0.98)
    experience = collect(policy, objective, prompts)
    with torch.no_grad():
        now, _, weight = policy.denoising(experience.rollout, experience.probe)
        off = objective.experts[1].loaded.denoising(experience.rollout, experience.probe).prediction
    assert torch.allclose(experience.teacher, now + 0.5 * (now - off), atol=1e-5)
    terms = policy.log_prob(experience.rollout, experience.probe).detach()
    assert weight.shape == terms.shape == experience.pull.shape and torch.allclose(experience.pull, weight)
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 0 and (gradient(policy, objective, experience, 1) - whole).norm() <= 1e-4 * whole.norm()


def test_two_predictions_are_as_far_apart_as_the_density_says() -> None:
    """log p under the probe is -w/2 ‖target - prediction‖² of `denoising`, on a toy of two dimensions."""
    from tests.toys import ToyLatent

    policy = Flow(ToyLatent(), num_inference_steps=3)
    rollout = policy.sample([Prompt("x"), Prompt("xx")], stream())
    probe = policy.probe(rollout, stream(1), 3)
    predictions, target, weight = policy.denoising(rollout, probe)
    assert torch.equal(target, probe["noise"] - rollout.trajectory["x0"][:, None])  # the velocity of a rectified flow
    error = (target - predictions).flatten(2).square().sum(2)
    assert torch.allclose(policy.log_prob(rollout, probe), -0.5 * weight * error, atol=1e-6)


def test_what_has_no_teacher_is_refused(experts: dict[str, str], lm: Callable[..., Any]) -> None:
    from tests.objectives.gaussian_policy import GaussianPolicy

    objective = objectives.build({"name": "distill", **experts}, "objective")
    with pytest.raises(CapabilityError, match="distill needs a policy whose steps have logits"):
        collect(GaussianPolicy(), objective, TEXTS)
    with pytest.raises(ConfigError, match="better: is built from a run file"):
        objectives.get("distill")("a", "b")
