"""The objectives over the package's own policies and reward mix, on the two-dimensional generators of `tests.toys`."""

from typing import Any

import pytest
import torch

from mmalign.core.capabilities import offers
from mmalign.core.objective import Objective
from mmalign.core.types import Preference, Prompt, Rollout
from mmalign.objectives import objectives
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from mmalign.rewards import Mix, Slot
from tests.objectives.driving import accumulate, collect, gradient, learn
from tests.toys import NearGaussian, NearPoint, ToyLatent, prompts

GOAL = torch.tensor([0.8, 0.2])  # inside [0, 1]: policies clamp what they show to rewards


def near() -> Mix:
    return Mix({"near": Slot(NearPoint((0.8, 0.2)))})


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "grpo, flow": (lambda: Flow(ToyLatent(), num_inference_steps=5), {"name": "grpo", "group_size": 8}),
    "grpo with guard, flow": (
        lambda: Flow(ToyLatent(), sde="flow_sde", num_inference_steps=5),
        {"name": "grpo", "guard": True, "clip": 0.1, "clip_unit": "mean", "beta": 0.01, "divergence": "gaussian"},
    ),
    "grpo in velocities, flow": (
        lambda: Flow(ToyLatent(), num_inference_steps=5),
        {"name": "grpo", "group_size": 8, "beta": 1e-3, "divergence": "velocity"},
    ),
    "grpo, ddpm": (lambda: Ddpm(ToyLatent("epsilon"), num_inference_steps=5), {"name": "grpo", "beta": 0.001}),
    "dpo, flow": (
        lambda: Flow(ToyLatent(), noise_level=0, num_inference_steps=5),
        {"name": "dpo", "online": "best_worst", "beta": 2.0, "draws": 2},
    ),
    "dragon, ddpm": (
        lambda: Ddpm(ToyLatent("epsilon"), num_inference_steps=5),
        {"name": "dragon", "builder": "pair", "beta": 2.0, "samples_per_prompt": 4},
    ),
    "nft, flow": (
        lambda: Flow(ToyLatent(), noise_level=0, num_inference_steps=5, weighting="const_x0"),
        {"name": "nft", "draws": 4, "reference_weight": 1e-3},
    ),
    "nft, ddpm": (lambda: Ddpm(ToyLatent("epsilon"), num_inference_steps=5), {"name": "nft", "draws": 4}),
    "r0, few steps": (
        lambda: FewStep(ToyLatent(), num_inference_steps=2),
        {"name": "r0", "samples_per_prompt": 4, "weight_decay_to_start": 1e-4},
    ),
}


def build(options: dict[str, Any], reward: Any) -> Any:
    return objectives.build(options, "objective", reward=reward)


def distance(policy: Any) -> torch.Tensor:
    made = policy.sample(prompts(3) * 64, torch.Generator().manual_seed(11))
    return (made.output.flatten(1) - GOAL).square().sum(1).mean()


@pytest.mark.parametrize(("policy", "options"), CASES.values(), ids=CASES.keys())
def test_learns_and_splits(policy: Any, options: dict[str, Any]) -> None:
    policy, objective = policy(), build(options, near())
    assert offers(policy, objective.needs)
    experience = collect(policy, objective, prompts(3))
    whole, part = gradient(policy, objective, experience), gradient(policy, objective, experience, 3, 2)
    assert whole.norm() > 0 and (whole - part).norm() <= 2e-5 * whole.norm()
    before = distance(policy)
    learn(policy, objective, prompts(3), steps=25, lr=0.02)
    assert distance(policy) < 0.9 * before  # the same noise before and after


def test_set_rewards_reach_dragon_through_the_mix() -> None:
    policy = Flow(ToyLatent(), noise_level=0, num_inference_steps=5)
    objective = build({"name": "dragon", "beta": 2.0}, Mix({"spread": Slot(NearGaussian(0.5, 0.2))}))
    pairs = collect(policy, objective, prompts(6))
    assert pairs.mask.all() and (pairs.gap > 0).all()
    assert accumulate(policy, objective, pairs)["margin/mean"] == 0


def test_offline_preferences_through_the_policy() -> None:
    policy = Flow(ToyLatent())
    rows = [Preference(Prompt("x"), GOAL.reshape(1, 1, 2) + 0.01 * i, torch.zeros(1, 1, 2)) for i in range(4)]
    objective = build({"name": "dpo", "beta": 5.0, "beta_unit": "mean", "loss_type": "ipo", "draws": 4}, None)
    pairs = collect(policy, objective, rows)
    assert isinstance(pairs.chosen, Rollout) and pairs.ref_chosen.shape == (4, 4)
    learn(policy, objective, rows, steps=20, lr=0.02)
    metrics = accumulate(policy, objective, collect(policy, objective, rows))
    assert metrics["margin/mean"] > 0 and metrics["margin/accuracy"] > 0.5


@pytest.mark.parametrize("name", objectives.names())
def test_every_objective_keeps_the_contract(name: str) -> None:
    component = objectives.get(name)
    assert isinstance(component.needs, type)
    for member in ("collect", "weigh", "loss"):
        assert getattr(component, member).__doc__, f"{name}.{member} has no docstring"
    assert Objective.__doc__
