import math

import pytest
import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError
from mmalign.core.types import StepDist
from mmalign.objectives._policy_gradient import Region, clipped_surrogate, guard_log_ratio, trust_region


def published(mean_logp: Tensor, mean_old: Tensor, advantage: float, clip: float) -> Tensor:
    """Flow-GRPO's loss on mean-space log-probs, as published."""
    ratio = (mean_logp - mean_old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


@pytest.mark.parametrize("advantage", [1.3, -0.7])
@pytest.mark.parametrize("shift", [0.0, 3e-5, -3e-5, 5e-4, -5e-4])
def test_mean_unit_is_the_published_loss_times_the_event_size(advantage: float, shift: float) -> None:
    size, clip = 65536, 1e-4
    mine = torch.tensor([[size * shift]], dtype=torch.float64, requires_grad=True)
    gain, _ = clipped_surrogate(
        mine, torch.tensor([[advantage]], dtype=torch.float64), trust_region(clip, None, "mean", size)
    )
    theirs = torch.tensor(shift, dtype=torch.float64, requires_grad=True)
    loss = published(theirs, torch.zeros_like(theirs), advantage, clip)
    assert -gain.item() == pytest.approx(size * loss.item(), rel=1e-12)
    (gain_slope,) = torch.autograd.grad(gain.sum(), mine)
    (loss_slope,) = torch.autograd.grad(loss, theirs)
    assert float(-gain_slope) == pytest.approx(float(loss_slope), rel=1e-12)  # d/dΔ of D·loss(Δ/D)


def test_nats_are_ppo_up_to_its_clip_and_widen_beyond() -> None:
    assert trust_region(0.2, 0.28, "nats", 65536) == Region(1.0, 0.2, 0.28)
    assert trust_region(0.1, None, "nats", 1) == Region(1.0, 0.1, 0.1)
    wide = trust_region(1.6, None, "nats", 16384)
    assert wide == pytest.approx((8.0, 0.2, 0.2))
    # the region in nats: 1.6 within the curvature of the logarithm, and no dependence on the event size
    assert wide.temperature * math.log(1 + wide.high) == pytest.approx(1.46, abs=0.01)
    assert wide == trust_region(1.6, None, "nats", 262144)


def test_units_agree_at_the_first_step() -> None:
    """At ratio 1 both units have the gradient A."""
    for region in (
        trust_region(0.2, None, "nats", 9),
        trust_region(3.0, None, "nats", 9),
        trust_region(1e-4, None, "mean", 9),
    ):
        delta = torch.zeros(1, 1, requires_grad=True)
        gain, ratio = clipped_surrogate(delta, torch.tensor([[2.5]]), region)
        (slope,) = torch.autograd.grad(gain.sum(), delta)
        assert slope.item() == pytest.approx(2.5) and ratio.item() == 1


def test_asymmetric_clip() -> None:
    region = trust_region(0.2, 0.5, "nats", 4)
    up = torch.tensor([[math.log(1.4)]], requires_grad=True)
    gain, _ = clipped_surrogate(up, torch.ones(1, 1), region)
    assert torch.autograd.grad(gain.sum(), up)[0].item() == pytest.approx(1.4)
    beyond = torch.tensor([[math.log(1.6)]], requires_grad=True)
    gain, _ = clipped_surrogate(beyond, torch.ones(1, 1), region)
    assert gain.item() == pytest.approx(1.5) and torch.autograd.grad(gain.sum(), beyond)[0].item() == 0


def gaussian(x: Tensor, mean: Tensor, std: Tensor) -> StepDist:
    z = (x - mean) / std[..., None]
    logp = (-0.5 * z.square() - std[..., None].log() - 0.5 * math.log(2 * math.pi)).sum(-1)
    return StepDist(log_prob=logp, mean=mean, std=std)


def test_guard_is_the_noise_times_the_move() -> None:
    """Independent form: Σ ε·(μ - μ_old); mean 0, and equally spread at every noise level (plain Δ is neither)."""
    rng = torch.Generator().manual_seed(0)
    rows, size = 4000, 6
    std = torch.tensor([1.0, 0.1], dtype=torch.float64).expand(rows, 2)
    old_mean = torch.randn(rows, 2, size, generator=rng, dtype=torch.float64)
    noise = torch.randn(rows, 2, size, generator=rng, dtype=torch.float64)
    move = torch.full((size,), 0.02, dtype=torch.float64)
    x = old_mean + std[..., None] * noise
    old, now = gaussian(x, old_mean, std), gaussian(x, old_mean + move, std)
    mask = torch.ones(rows, 2, dtype=torch.bool)
    got = guard_log_ratio(now, old, mask)
    assert torch.allclose(got, (noise * move).sum(-1), atol=1e-9)
    plain = now.log_prob - old.log_prob
    assert got.mean(0).abs().max() < 0.003 and plain[:, 1].mean() < -0.1
    assert got[:, 0].std() == pytest.approx(float(got[:, 1].std()), rel=0.05)
    assert plain[:, 1].std() > 5 * plain[:, 0].std()
    # published mean-space exponent (Flow-Factory's form): mean log-prob difference × s + mean squared move / 2s
    theirs = plain / size * std + move.square().mean() / (2 * std)
    assert torch.allclose(got / size, theirs, atol=1e-10)


def test_guard_survives_deterministic_steps_and_needs_moments() -> None:
    mean = torch.zeros(1, 2, 3)
    old = StepDist(log_prob=torch.zeros(1, 2), mean=mean, std=torch.tensor([[1.0, 0.0]]))
    now = StepDist(log_prob=torch.zeros(1, 2), mean=mean + 1, std=old.std)
    assert guard_log_ratio(now, old, torch.tensor([[True, False]])).isfinite().all()
    with pytest.raises(CapabilityError, match=r"guard needs steps with a mean and a std.*guard: false"):
        guard_log_ratio(StepDist(log_prob=torch.zeros(1, 2)), old, torch.ones(1, 2, dtype=torch.bool))
