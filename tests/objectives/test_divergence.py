import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmalign.core.errors import CapabilityError
from mmalign.core.types import StepDist
from mmalign.objectives._policy_gradient import divergence, gaussian_kl, k1, k2, k3


def test_gaussian_is_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, other = torch.randn(3, 2, 4, 5, dtype=torch.float64), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    std, wide = torch.rand(3, 2, dtype=torch.float64) + 0.1, torch.rand(3, 2, dtype=torch.float64) + 0.1
    there = kl_divergence(Normal(mean, std[..., None, None]), Normal(other, wide[..., None, None])).flatten(2).sum(2)
    assert torch.allclose(gaussian_kl(mean, std, other, wide), there, rtol=1e-12)
    assert gaussian_kl(mean, std, mean, std).abs().max() == 0


def test_low_precision_is_lifted() -> None:
    mean = torch.full((1, 1, 4096), 1.0, dtype=torch.bfloat16)
    got = gaussian_kl(mean, torch.ones(1, 1), torch.zeros_like(mean), torch.ones(1, 1))
    assert got.item() == 2048.0 and got.dtype == torch.float32


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimators_estimate(kind: str) -> None:
    """k1 and k3 are unbiased; k2 nearly so for close distributions."""
    rng = torch.Generator().manual_seed(0)
    p, q = Normal(0.0, 1.0), Normal(0.1, 1.0)
    x = torch.randn(400_000, 1, generator=rng)
    got = {"k1": k1, "k2": k2, "k3": k3}[kind](p.log_prob(x), q.log_prob(x)).mean()
    assert float(got) == pytest.approx(0.005, abs=6e-4)


def test_expected_gradients() -> None:
    """Of p = N(θ, 1) at θ = 0 from q = N(½, 1): KL(p‖q) and KL(q‖p) both have slope -½; k1's expected slope is 0."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400_000, 1, generator=rng)
    slopes = {}
    for name, estimate in (("k1", k1), ("k2", k2), ("k3", k3)):
        theta = torch.zeros((), requires_grad=True)
        estimate(Normal(theta, 1.0).log_prob(x), Normal(0.5, 1.0).log_prob(x)).mean().backward()
        assert theta.grad is not None
        slopes[name] = theta.grad.item()
    assert slopes["k1"] == pytest.approx(0, abs=0.01)
    assert slopes["k2"] == pytest.approx(-0.5, abs=0.01)
    assert slopes["k3"] == pytest.approx(-0.5, abs=0.01)


def test_masked_steps_stay_out() -> None:
    mask = torch.tensor([[True, False]])
    mean = torch.zeros(1, 2, 3)
    dist = StepDist(torch.tensor([[0.0, torch.inf]]), mean, torch.tensor([[1.0, 0.0]]))
    ref = StepDist(torch.tensor([[0.5, torch.nan]]), mean + 1, torch.tensor([[1.0, 0.0]]))
    slope = torch.tensor([[0.5, 0.0]])
    for kind in ("k1", "k2", "k3", "gaussian", "velocity"):
        got = divergence(kind, dist, ref, mask, slope)
        assert got.isfinite().all() and got[0, 1] == 0 and got[0, 0] != 0


def test_gaussian_needs_means() -> None:
    bare = StepDist(torch.zeros(1, 1))
    with pytest.raises(CapabilityError, match=r"needs the mean and std of every step.*divergence: k3"):
        divergence("gaussian", bare, bare, torch.ones(1, 1, dtype=torch.bool))
