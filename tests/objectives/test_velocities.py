"""The distance of velocities in the place of a KL: beside the network's own predictions, in closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.adapters import load_adapter
from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import VelocityPolicy
from mmalign.core.setting import Setting
from mmalign.core.types import NoiseLevel, Rollout
from mmalign.objectives._policy_gradient import gaussian_kl, velocity
from mmalign.objectives.grpo import GRPO
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from mmalign.training.checks import check_start
from tests.adapters import tiny
from tests.adapters.asked import Rising, asked_of
from tests.objectives.driving import accumulate, collect, gradient
from tests.policies.worlds import DoubleLatent, jolt
from tests.toys import NearPoint, ToyLatent, prompts

RULES = ("flow_sde", "cps", "dance")


class Exact(DoubleLatent):
    """A toy whose levels are float64, too, once outputs are sampled: those are recorded in float32."""

    exact = False

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        level = super().schedule(num_inference_steps)
        if not self.exact:
            return level
        return NoiseLevel(alpha=level.alpha.double(), sigma=level.sigma.double(), times=level.times.double())


def in_double(policy: Flow, rollout: Rollout) -> Rollout:
    """From now on `policy` computes in float64, with the recorded latents of `rollout`."""
    adapter: Any = policy.adapter
    adapter.exact = True
    doubled = {k: v.double() if v.is_floating_point() else v for k, v in rollout.trajectory.items()}
    return replace(rollout, trajectory=doubled)


def coefficient(sde: str, sigma: Tensor, after: Tensor, second: Tensor) -> Tensor:
    """∂mean/∂v as the papers' steps have it, written out."""
    dt = sigma - after
    if sde == "cps":
        return -(1 - after) * sigma + (1 - sigma) * after * math.cos(0.8 * math.pi / 2)
    below = torch.where(sigma == 1, second, sigma)
    variance = torch.full_like(sigma, 0.09) if sde == "dance" else 0.49 * sigma / (1 - below)
    return -dt * (1 + variance * (1 - sigma) / (2 * sigma))


@pytest.mark.parametrize("sde", RULES)
def test_slopes_are_the_papers_coefficients(sde: Any) -> None:
    made = Flow(Exact(), sde=sde, num_inference_steps=7)
    rollout = in_double(made, made.sample(prompts(2), torch.Generator().manual_seed(0)))
    sigma = made.adapter.schedule(7).sigma
    want = coefficient(sde, sigma[:-1], sigma[1:], sigma[1])[rollout.trajectory["step"]]
    torch.testing.assert_close(made.mean_slope(rollout), want, rtol=1e-12, atol=0)
    assert torch.equal(made.mean_slope(rollout, slice(1, 3)), made.mean_slope(rollout)[:, 1:3])
    assert (made.mean_slope(rollout) < 0).all()


def squared_gap(policy: Flow, rollout: Rollout, guidance: float) -> Tensor:
    """‖v - v_ref‖² (B, T) of guided velocities: asked of the network itself, without steps."""
    adapter: Any = policy.adapter
    condition, empty = adapter.encode(rollout.prompts), adapter.unconditional(len(rollout))
    x, step = rollout.trajectory["x"], rollout.trajectory["step"]
    times = adapter.schedule(policy.num_inference_steps).times

    def velocities() -> Tensor:
        columns = []
        for t in range(step.shape[1]):
            told, blank = (adapter.predict(x[:, t], times[step[:, t]], given) for given in (condition, empty))
            columns.append(blank + guidance * (told - blank))
        return torch.stack(columns, 1)

    with torch.no_grad(), adapter.reference():
        start = velocities()
    return (velocities() - start).square().flatten(2).sum(2)


@pytest.mark.parametrize("sde", RULES)
def test_the_term_and_its_gradient_are_those_of_the_networks_velocities(sde: Any) -> None:
    made = Flow(Exact(), sde=sde, num_inference_steps=5, guidance_scale=2.0)
    objective = GRPO(NearPoint(), group_size=4, beta=1e6, divergence="velocity", std="none")
    jolt(made.adapter)  # type: ignore[arg-type]
    experience = collect(made, objective, prompts(3))
    rollout = in_double(made, experience.rollout)
    with torch.no_grad(), made.reference():
        experience = replace(experience, rollout=rollout, ref=made.step_dist(rollout))
    want = squared_gap(made, experience.rollout, 2.0)
    mean = want[experience.mask].mean().item()  # a group of equal rewards does not train
    assert accumulate(made, objective, experience)["kl/velocity"] == pytest.approx(mean, rel=1e-10)
    beta = objective.beta
    of_term = gradient(made, objective, experience) / beta  # the gain's part is 1e-6 of it
    weight = objective.weigh(experience.mask, lambda total: total)
    parameters = list(made.adapter.module.parameters())
    direct = torch.cat([g.flatten() for g in torch.autograd.grad((weight * want).sum(), parameters)])
    torch.testing.assert_close(of_term, direct, rtol=1e-4, atol=1e-5 * float(direct.abs().max()))


def test_for_flow_grpos_steps_the_gaussian_kl_is_a_multiple_of_it() -> None:
    """|dt|/2 (σ_t (1 - t)/(2t) + 1/σ_t)² (Flow-GRPO, eq. of the KL), with σ_t = 0.7 √(t / (1 - t))."""
    made = Flow(Exact(), sde="flow_sde", num_inference_steps=6)
    rollout = in_double(made, made.sample(prompts(2), torch.Generator().manual_seed(0)))
    jolt(made.adapter)  # type: ignore[arg-type]
    with torch.no_grad():
        now = made.step_dist(rollout)
        with made.reference():
            ref = made.step_dist(rollout)
    assert now.mean is not None and now.std is not None and ref.mean is not None and ref.std is not None
    kl, gap = gaussian_kl(now.mean, now.std, ref.mean, ref.std), velocity(now.mean, ref.mean, made.mean_slope(rollout))
    t = made.adapter.schedule(6).sigma
    sigma = 0.7 * (t[1:-1] / (1 - t[1:-1])).sqrt()
    factor = (t[1:-1] - t[2:]) / 2 * (sigma * (1 - t[1:-1]) / (2 * t[1:-1]) + 1 / sigma).square()
    later = rollout.trajectory["step"] > 0  # at t = 1 σ_t is infinite: the code puts another number there
    assert later.sum() == 2 * 4
    torch.testing.assert_close((kl / gap)[later], factor[rollout.trajectory["step"][later] - 1], rtol=1e-9, atol=0)


def test_policies_without_velocities_are_refused_by_both_checks() -> None:
    objective = GRPO(NearPoint(), group_size=2, beta=0.1, divergence="velocity")
    sentence = r"divergence 'velocity' compares the velocities of a flow.*set divergence: gaussian"
    with pytest.raises(CapabilityError, match=sentence):
        collect(Ddpm(ToyLatent("epsilon"), num_inference_steps=3), objective, prompts(1))
    for kind, refused in ((Flow, False), (Ddpm, True), (Tokens, True), (FewStep, True), (None, False)):
        faults = list(objective.check(Setting("grpo", "weighted_sum", policy=kind)))
        assert len(faults) == refused and all("objective.divergence 'velocity'" in fault for fault in faults)
    assert not list(GRPO(NearPoint(), beta=0.1).check(Setting("grpo", "weighted_sum", policy=Ddpm)))


def test_one_update_of_a_real_class(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = tiny.write_tiny_sd3(tmp_path / "model")
    adapter = load_adapter("sd3", model=str(folder), device="cpu", train="full")
    made = Flow(adapter, num_inference_steps=3, guidance_scale=2.0)
    assert isinstance(made, VelocityPolicy)
    objective = GRPO(Rising(), group_size=2, beta=1.0, divergence="velocity")
    experience = collect(made, objective, asked_of(adapter))
    check_start(made, experience, len(experience), fresh=True)
    before = accumulate(made, objective, experience)
    assert before["kl/velocity"] == 0 and "kl/reference" not in before
    torch.optim.SGD(adapter.trainable().values(), lr=1e-3).step()
    adapter.module.zero_grad()
    assert accumulate(made, objective, experience)["kl/velocity"] > 0
