import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.objectives import _preferences as preference

ONE = torch.ones(1, dtype=torch.float64)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@settings(max_examples=50)
@given(st.floats(-30, 30), st.floats(0, 1))
def test_sigmoid_is_cross_entropy(z: float, label: float) -> None:
    p = 1 / (1 + np.exp(-np.float64(z)))
    want = -label * np.log(p) - (1 - label) * np.log1p(-p) if abs(z) < 15 else None
    got = preference.sigmoid(scalar(z), scalar(label)).item()
    assert want is None or got == pytest.approx(want, rel=1e-6, abs=1e-9)
    assert math.isfinite(got)


@pytest.mark.parametrize("label", [0.6, 0.9])
def test_soft_label_optimum_is_its_logit(label: float) -> None:
    z = scalar(math.log(label / (1 - label))).requires_grad_()
    preference.sigmoid(z, scalar(label)).sum().backward()
    assert z.grad is not None and abs(z.grad.item()) < 1e-12


def test_smoothing_flips_a_share() -> None:
    assert preference.smooth_labels(ONE, 0.1).item() == pytest.approx(0.9)
    assert preference.smooth_labels(scalar(0.5), 0.3).item() == pytest.approx(0.5)
    assert preference.smooth_labels(scalar(0.0), 0.1).item() == pytest.approx(0.1)


def test_hinge_by_hand() -> None:
    assert [preference.hinge(scalar(z), ONE).item() for z in (-1.0, 0.0, 0.4, 2.0)] == pytest.approx([2, 1, 0.6, 0])
    assert preference.hinge(scalar(0.5), scalar(0.75)).item() == pytest.approx(0.75 * 0.5 + 0.25 * 1.5)


def test_kto_by_hand() -> None:
    """chosen z 0.8, rejected z -0.2, reference point 0.3."""
    sigma = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    want = 0.5 * (1 - sigma(0.5)) + 0.5 * (1 - sigma(0.5))
    assert preference.kto(scalar(0.8), scalar(-0.2), scalar(0.3), ONE).item() == pytest.approx(want)
    flipped = preference.kto(scalar(0.8), scalar(-0.2), scalar(0.3), scalar(0.0)).item()
    assert flipped == pytest.approx(1 - want)
    assert preference.kto(scalar(0.0), scalar(0.0), scalar(0.0), ONE).item() == 0.5


def test_losses_at_the_start() -> None:
    """Log-ratios of 0, where each paper's own loss has a value known by hand."""
    zero, log2 = scalar(0.0), math.log(2)
    at_zero = {"nca_pair": 2 * log2, "bco_pair": 2 * log2, "apo_zero": 1.0, "apo_down": 1.0}
    for name, want in at_zero.items():
        assert getattr(preference, name)(zero, zero).item() == pytest.approx(want)
    assert preference.discopop(zero, ONE).item() == pytest.approx(0.5 * log2 + 0.5)
    start = zero.clone().requires_grad_()
    slope = torch.autograd.grad(preference.discopop(start, ONE).sum(), start)[0].item()
    assert slope == pytest.approx(-0.25 - 0.5 + (1 - log2) / (4 * 0.05))  # rises, as its docstring warns
    assert preference.sppo_hard((zero, zero), (zero, zero), ONE).item() == 0.5
    assert preference.copg(zero, zero, scalar(3.0)).item() == 4.5
    assert preference.ipo(scalar(0.2), scalar(0.2), ONE).item() == pytest.approx(
        2 * preference.copg(scalar(0.2), scalar(0.2), scalar(0.5)).item()
    )


def test_exo_is_the_kl_from_the_label_and_least_at_it() -> None:
    z = scalar(math.log(0.8 / 0.2)).requires_grad_()
    loss = preference.exo_pair(z, scalar(0.8))
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss.sum(), z)[0].item() == pytest.approx(0, abs=1e-12)
    want = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert preference.exo_pair(scalar(0.0), scalar(0.8)).item() == pytest.approx(want)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_robust_labels_are_right_on_average(share: float) -> None:
    """Over flips with that share, the loss of unflipped labels is the loss of the true ones."""
    z = scalar(0.7)
    noisy = [preference.sigmoid(z, preference.unflip_labels(scalar(seen), share)) for seen in (1.0, 0.0)]
    mean = (1 - share) * noisy[0] + share * noisy[1]
    assert mean.item() == pytest.approx(preference.sigmoid(z, ONE).item())


@pytest.mark.parametrize("chosen", [-1e-4, -0.3, -0.9, -40.0])
def test_orpo_is_the_odds_ratio(chosen: float) -> None:
    p, q = np.exp(np.float64(chosen)), np.exp(np.float64(-1.5))
    odds = np.log(p) - np.log(-np.expm1(np.float64(chosen))) - np.log(q / (1 - q))
    x = scalar(chosen).requires_grad_()
    loss = preference.orpo(x, scalar(-1.5))
    assert loss.item() == pytest.approx(np.logaddexp(0, -odds), rel=1e-9)
    assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()


def test_halves_are_two_estimates_of_the_same_sum() -> None:
    even, odd = preference.halves(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert (even.item(), odd.item()) == (8.0, 12.0)
    assert (even + odd).item() / 2 == 10.0


def test_one_noisy_draw_biases_ipo_and_two_do_not() -> None:
    """ẑ = θ (1 + ξ), Var ξ = 1: squaring one draw moves the minimiser of (z - ½)² from ½ to ¼."""
    rng = torch.Generator().manual_seed(0)
    draws = 1 + torch.randn(400_000, 2, generator=rng, dtype=torch.float64)
    label = torch.ones(len(draws), dtype=torch.float64)

    def minimiser(first: torch.Tensor, second: torch.Tensor) -> float:
        """Where the expected gradient of the loss crosses 0; it is linear in θ, so two evaluations tell."""
        slopes = []
        for at in (0.0, 1.0):
            theta = torch.tensor(at, dtype=torch.float64, requires_grad=True)
            preference.ipo(theta * first, theta * second, label).mean().backward()
            assert theta.grad is not None
            slopes.append(theta.grad.item())
        return -slopes[0] / (slopes[1] - slopes[0])

    assert minimiser(draws[:, 0], draws[:, 0]) == pytest.approx(0.25, abs=0.01)
    assert minimiser(draws[:, 0], draws[:, 1]) == pytest.approx(0.50, abs=0.01)


def test_ipo_with_soft_label() -> None:
    z = scalar(0.2).requires_grad_()
    preference.ipo(z, z, scalar(0.7)).sum().backward()
    assert z.grad is not None and abs(z.grad.item()) < 1e-12


def test_orpo_of_answers_that_are_certain_is_finite() -> None:
    chosen, rejected = (torch.zeros(2, requires_grad=True) for _ in range(2))
    loss = preference.orpo(chosen, rejected).sum()
    assert loss.item() == pytest.approx(2 * np.log(2))
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(loss, (chosen, rejected)))
