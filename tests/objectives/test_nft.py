"""NFT: the loss against a float64 loop, its gradient at the old policy, and which rows it trains on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Status
from mmalign.objectives import objectives
from mmalign.objectives.nft import contrast, optimality
from mmalign.policies.flow import Flow
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn
from tests.toys import NearPoint, ToyLatent, prompts

RNG = torch.Generator().manual_seed(0)


def flow(**options: Any) -> Flow:
    return Flow(ToyLatent(), noise_level=0, num_inference_steps=3, weighting="const_x0", **options)


def build(reward: Any, **options: Any) -> Any:
    return objectives.build({"name": "nft", **options}, "objective", reward=reward)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_the_loss_is_the_published_one_of_x0(beta: float) -> None:
    """Predictions of x0 by x_t - t v, each error over its own mean absolute value, as the public code computes it."""
    x0, noise, now, old = (drawn(3, 2, 4, 2, 2) for _ in range(4))
    t, r = torch.rand(3, 2, generator=RNG, dtype=torch.float64), torch.rand(3, 1, generator=RNG, dtype=torch.float64)
    want = torch.zeros(3, 2, dtype=torch.float64)
    for row in range(3):
        for draw in range(2):
            time = t[row, draw]
            noisy = (1 - time) * x0[row, draw] + time * noise[row, draw]
            for sign, share in ((1, r[row, 0]), (-1, 1 - r[row, 0])):
                implied = (1 - sign * beta) * old[row, draw] + sign * beta * now[row, draw]
                off = noisy - time * implied - x0[row, draw]
                want[row, draw] += share * off.square().mean() / off.abs().mean() / beta
    got = contrast(now, old, noise - x0, t.square(), r, beta, self_normalised=True)
    assert torch.allclose(got, want)


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_at_the_old_policy_the_gradient_is_that_of_the_error_by_how_good_it_is(beta: float) -> None:
    old, target, factor, good = (
        drawn(3, 2, 5),
        drawn(3, 2, 5),
        drawn(3, 2).square(),
        torch.tensor([[1.0], [0.5], [0.1]]),
    )
    now = old.clone().requires_grad_()
    contrast(now, old, target, factor, good.double(), beta, self_normalised=False).sum().backward()
    want = (2 * good[..., None] - 1) * factor[..., None] * 2 * (old - target) / 5
    assert now.grad is not None and torch.allclose(now.grad, want)


def test_the_pull_to_the_old_policy_grows_with_beta() -> None:
    """Without normalisation the minimum is v_old - (2r - 1) (v_old - v*) / β: for r = 1 and β = 1 it is the target."""
    old, target = drawn(1, 1, 4), drawn(1, 1, 4)
    for good, beta in ((1.0, 1.0), (0.75, 0.5), (0.2, 2.0)):
        best = (old - (2 * good - 1) * (old - target) / beta).requires_grad_()
        share = torch.tensor([[good]], dtype=torch.float64)
        contrast(best, old, target, torch.ones(1, 1).double(), share, beta, self_normalised=False).sum().backward()
        assert best.grad is not None and best.grad.abs().max() < 1e-12


def test_good_is_half_at_the_mean_and_ends_at_the_limit() -> None:
    assert optimality(torch.tensor([-9.0, -2.5, 0.0, 1.0, 5.0]), 5.0).tolist() == pytest.approx([0, 0.25, 0.5, 0.6, 1])


def test_rows_that_say_nothing_are_left_out_and_counted() -> None:
    reward = Fixed([1.0, 1.0, 0.0, 2.0, 0.0, 1.0], [Status.OK] * 5 + [Status.ERROR])
    policy, objective = flow(), build(reward, group_size=2, reference_weight=0.0)
    experience = collect(policy, objective, [Prompt("x"), Prompt("xx"), Prompt("xxx")])
    assert experience.mask.any(1).tolist() == [False, False, True, True, False, False]
    assert experience.ref is None and experience.old[~experience.mask].eq(0).all()
    assert experience.good[:2].tolist() == [0.5, 0.5] and experience.good[2] < 0.5 < experience.good[3]
    counts = objective.counts(experience)
    assert float(counts["rows/invalid"]) == pytest.approx(1 / 6)
    assert float(counts["rows/dropped"]) == pytest.approx(3 / 6)  # with its partner gone, a row has no group
    assert gradient(policy, objective, experience).isfinite().all()


def test_it_starts_at_the_old_policy_and_the_reference_and_leaves_both() -> None:
    policy, objective = flow(), build(NearPoint((0.8, 0.2)), draws=2, reference_weight=0.1)
    experience = collect(policy, objective, prompts(3))
    before = accumulate(policy, objective, experience)
    assert before["drift/old"] == pytest.approx(0, abs=1e-12) and before["drift/reference"] == pytest.approx(
        0, abs=1e-12
    )
    learn(policy, objective, prompts(3), steps=2, lr=0.02)
    after = accumulate(policy, objective, experience)
    assert after["drift/old"] > 1e-6 and after["drift/reference"] == pytest.approx(after["drift/old"])


def test_more_updates_of_one_batch_see_the_old_policy_stand_still() -> None:
    policy, objective = flow(), build(NearPoint((0.8, 0.2)), draws=2)
    experience = collect(policy, objective, prompts(3))
    first = experience.old.clone()
    with torch.no_grad():
        for weight in policy.adapter.module.parameters():
            weight.add_(0.01)
    accumulate(policy, objective, experience)
    assert torch.equal(experience.old, first)


def test_what_cannot_be_meant_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        build(NearPoint(), group_size=1, beta=0.0, advantage_limit=-1.0)
    assert all(option in str(refused.value) for option in ("group_size", "beta", "advantage_limit"))
