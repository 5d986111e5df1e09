"""Set statistics against closed forms, scipy, brute-force leave-one-out and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mmalign.rewards import functional as F

HALF_SPREAD = torch.tensor([-1.0, 1.0]) / math.sqrt(2)  # two rows of sample variance 1


def rows(n, d, seed=0, scale=1.0, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=torch.float64) * scale + shift


def normal(mean, cov):
    return F.Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(cov, dtype=torch.float64))


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (normal([0.0], [[1.0]]), normal([1.0], [[1.0]]), 1.0),
        (normal([0.0], [[1.0]]), normal([0.0], [[4.0]]), 1.0),
        (normal([1.0], [[1.0]]), normal([3.0], [[9.0]]), 8.0),
        # tr sqrt M = sqrt(tr M + 2 sqrt(det M)) for 2 x 2 matrices
        (normal([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]]), normal([1.0, -1.0], [[1.0, 0.0], [0.0, 3.0]]), 2.516685226),
        (normal([0.0] * 128, torch.eye(128).tolist()), normal([0.5] * 128, (4 * torch.eye(128)).tolist()), 160.0),
    ],
)
def test_frechet_of_known_gaussians(first, second, expected):
    assert F.frechet_between(first, second).item() == pytest.approx(expected, abs=1e-6)
    assert F.frechet_between(second, first).item() == pytest.approx(expected, abs=1e-6)


def test_frechet_of_rows_in_one_dimension():
    x = (3 + 2 * HALF_SPREAD)[:, None]
    assert F.frechet_distance(x, normal([0.0], [[1.0]])).item() == pytest.approx(9 + (2 - 1) ** 2, abs=1e-6)


@pytest.mark.parametrize("n", [5, 40, 200])
def test_frechet_of_a_set_with_itself_is_zero(n):
    x = rows(n, 16)
    assert abs(F.frechet_distance(x, x).item()) < 1e-9


@pytest.mark.parametrize("n", [6, 50])
def test_frechet_equals_scipy_sqrtm(n):
    import numpy as np
    from scipy.linalg import sqrtm

    x, y = rows(n, 12, 1, shift=0.3), rows(80, 12, 2, scale=1.5)
    c1, c2 = np.cov(x.numpy().T), np.cov(y.numpy().T)
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    expected = gap + np.trace(c1) + np.trace(c2) - 2 * np.real(np.trace(sqrtm(c1 @ c2)))
    # scipy's Schur method loses digits on singular covariances (n < d); ours does not.
    assert F.frechet_distance(x, y).item() == pytest.approx(expected, abs=1e-4 if n < 12 else 1e-8)


def test_frechet_float32_rows_with_a_steep_spectrum_stay_positive():
    steep = torch.logspace(0, -5, 32)
    x, y = (rows(500, 32, s) * steep for s in (3, 4))
    assert (
        0 < F.frechet_distance(x.float(), y.float()).item() == pytest.approx(F.frechet_distance(x, y).item(), rel=1e-3)
    )


@pytest.mark.parametrize("n, repeated", [(8, False), (30, False), (8, True)])
def test_frechet_gradient_equals_finite_differences(n, repeated):
    y = rows(60, 10, 5)
    x = rows(n, 10, 6, scale=0.7)
    if not repeated:
        x = x.requires_grad_()
        assert torch.autograd.gradcheck(lambda v: F.frechet_distance(v, y), (x,), eps=1e-6, atol=1e-6)
        return
    x = torch.cat([x, x]).requires_grad_()  # every row twice: moving both copies is differentiable
    F.frechet_distance(x, y).backward()
    step = torch.zeros_like(x)
    step[3, 2] = step[3 + n, 2] = 1e-5
    with torch.no_grad():
        numeric = (F.frechet_distance(x + step, y) - F.frechet_distance(x - step, y)) / 2e-5
    assert (x.grad[3, 2] + x.grad[3 + n, 2]).item() == pytest.approx(numeric.item(), rel=1e-6)


def without(x, i):
    return torch.cat([x[:i], x[i + 1 :]])


def left_out(score, x):
    return torch.stack([score(x) - score(without(x, i)) for i in range(len(x))])


def pearson(a, b):
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()


def test_exact_leave_one_out_of_frechet_blames_the_outlier():
    x, ref = torch.tensor([[0.0], [1.0], [2.0], [10.0]]), normal([1.0], [[1.0]])
    assert F.frechet_distance(x, ref).item() == pytest.approx(17.8322, abs=1e-4)
    exact = left_out(lambda v: -F.frechet_distance(v, ref), x)
    assert exact.tolist() == pytest.approx([8.7465, 9.5848, 9.5971, -17.8322], abs=1e-4)
    credit = F.frechet_credit(x, ref)
    assert credit.argmin() == 3 and credit.mean().abs() < 1e-9


@pytest.mark.parametrize("n, d, least", [(24, 48, 0.8), (96, 16, 0.97)])
def test_frechet_credit_follows_leave_one_out(n, d, least):
    y, x = F.gaussian(rows(300, d, 7)), rows(n, d, 8, scale=1.2, shift=0.2)
    exact = left_out(lambda v: -F.frechet_distance(v, y), x)
    assert torch.allclose(F.frechet_leave_one_out(x, y), exact, atol=1e-6)
    credit = F.frechet_credit(x, y)
    assert pearson(credit, exact) > least
    assert credit.std().item() == pytest.approx(exact.std().item(), rel=0.35)  # same units, not only same order
    assert credit.mean().abs() < 1e-9


@pytest.mark.parametrize("n, d", [(5, 9), (12, 4)])
def test_frechet_of_subsets_is_the_distance_of_each(n, d):
    y, x = F.gaussian(rows(40, d, 19)), rows(2 * n, d, 20, scale=1.4, shift=3.0)
    subsets = torch.stack([torch.randperm(2 * n, generator=torch.Generator().manual_seed(s))[:n] for s in range(6)])
    expected = torch.stack([F.frechet_distance(x[chosen], y) for chosen in subsets])
    assert torch.allclose(F.frechet_of_subsets(x, subsets, y), expected, atol=1e-6)


def test_frechet_credit_is_the_derivative_when_weight_moves_to_a_row():
    """Weighted mean and covariance with weight moved to row i, differentiated numerically (n > d)."""
    x, y = rows(20, 3, 9, scale=1.3), F.gaussian(rows(50, 3, 10))

    def weighted(p):
        mean = p @ x
        cov = (x - mean).T @ ((x - mean) * p[:, None]) * len(x) / (len(x) - 1)
        return F.frechet_between(F.Gaussian(mean, cov), y)

    even, h = torch.full((20,), 1 / 20, dtype=torch.float64), 1e-5
    differences = []
    for i in range(20):
        to = torch.eye(20, dtype=torch.float64)[i] - even
        differences.append((weighted(even + h * to) - weighted(even - h * to)) / (2 * h))
    slopes = torch.stack(differences)
    # The derivative carries n/(n-1) from the unbiased covariance on the quadratic terms only; compare shapes and size.
    credit = F.frechet_credit(x, y) * -(len(x) - 1)
    assert pearson(credit, slopes) > 0.9999
    assert credit.std().item() == pytest.approx(slopes.std().item(), rel=0.06)


def test_frechet_refuses_too_small_or_foreign_sets():
    with pytest.raises(ValueError, match=r"evaluated set needs at least 2 rows .* got shape \(1, 3\)"):
        F.frechet_distance(rows(1, 3), rows(9, 3))
    with pytest.raises((ValueError, TypeError), match=r"4 features but the reference has 3|M D"):
        F.frechet_distance(rows(5, 4), rows(9, 3))
    with pytest.raises((ValueError, TypeError), match=r"mean \(D,\) and cov \(D, D\)|D D"):
        F.Gaussian(torch.zeros(3), torch.eye(2))


def points(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    "x, y, expected",
    [
        (points(0, 1), points(2, 3), 76.890621),
        (points(0, 1), points(0, 1), -39.346934),
        (points(0, 1, 2), points(0, 1, 2), -36.702298),
    ],
)
def test_kad_golden_values(x, y, expected):
    """Computed with kadtk's formula (unbiased, bandwidth 1, scale 100)."""
    assert F.kad(x, y, 1.0).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [3, 12])
def test_mmd_credit_is_exactly_leave_one_out(n):
    x, y = rows(n, 4, 11, scale=0.5), rows(20, 4, 12)
    credit = F.mmd_credit(x, y, 1.3)
    assert torch.allclose(credit, left_out(lambda v: -F.mmd(v, y, 1.3), x), atol=1e-12)
    assert credit.mean().abs() < 1e-12


def test_mmd_bandwidth_comes_from_the_reference():
    y = points(0, 1, 3)
    assert F.median_bandwidth(y) == 2.0
    x = rows(4, 1, 13)
    assert F.mmd(x, y) == F.mmd(x, y, 2.0)
    with pytest.raises(ValueError, match="pairs are equal"):
        F.median_bandwidth(points(1, 1, 1))


def test_kernels_hold_no_table_of_differences():
    """N x M x D numbers of a reference of 2000 rows in 512 features would be 16 GB."""
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            largest.append(result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    reference = torch.randn(60, 200, generator=torch.Generator().manual_seed(0))
    with Watch():
        F.self_likeness(reference, 20.0)
        F.mmd(reference[:40], reference)
    assert max(largest) <= 60 * 200


def test_mmd_gradient():
    x = rows(5, 3, 14).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: F.mmd(v, rows(6, 3, 15)), (x,))


@pytest.mark.parametrize(
    "kernel, expected",
    [
        (torch.eye(4), 4.0),
        (torch.ones(5, 5), 1.0),
        (torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)), 2.0),
        (torch.tensor([[1.0, 0.5], [0.5, 1.0]]), 1.754765),
    ],
)
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_vendi_golden_values(kernel, expected, order):
    if expected == 1.754765 and order != 1.0:
        pytest.skip("known at order 1 only")
    assert F.vendi_score_kernel(kernel, order).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n, d", [(20, 4), (6, 30)])
@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
def test_vendi_of_rows_equals_vendi_of_their_kernel(n, d, order):
    x = rows(n, d, 16)
    unit = x / x.norm(dim=1, keepdim=True)
    expected = F.vendi_score_kernel(unit @ unit.T, order).item()
    assert F.vendi_score(x * 7, order).item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0, math.inf]))
def test_vendi_lies_between_one_and_the_smaller_of_n_and_d(n, d, seed, order):
    value = F.vendi_score(rows(n, d, seed), order).item()
    assert 1 - 1e-6 <= value <= min(n, d) + 1e-6


@pytest.mark.parametrize("order, least", [(0.5, 0.95), (1.0, 0.98), (2.0, 0.98), (math.inf, 0.9)])
def test_vendi_credit_follows_leave_one_out(order, least):
    x = rows(48, 24, 17)
    x[:12] = x[:1] + 0.2 * x[:12]  # a cluster, whose members add little
    exact = left_out(lambda v: F.vendi_score(v, order), x)
    credit = F.vendi_credit(x, order)
    assert pearson(credit, exact) > least
    assert credit.std().item() == pytest.approx(exact.std().item(), rel=0.3)
    assert credit[:12].max() < credit[12:].mean()
    assert credit.mean().abs() < 1e-9


def test_vendi_gradient_also_where_rows_repeat():
    x = rows(5, 4, 18)
    assert torch.autograd.gradcheck(lambda v: F.vendi_score(v), (x.clone().requires_grad_(),))
    twice = torch.cat([x, x]).requires_grad_()
    F.vendi_score(twice).backward()
    assert twice.grad.isfinite().all()


@pytest.mark.parametrize("d", [4, 6])
def test_vendi_gives_equal_rows_equal_credit_where_leading_eigenvalues_tie(d):
    """Four orthogonal rows are alike in every way; which of their eigenvectors comes first is the library's whim."""
    assert F.vendi_credit(torch.eye(4, d), math.inf).abs().max() < 1e-12
    pairs = torch.eye(2, d).repeat_interleave(2, 0)  # two clusters of two
    assert F.vendi_credit(torch.cat([pairs, torch.eye(3, d)[2:]]), math.inf)[:4].std() < 1e-12
    turned = torch.linalg.qr(rows(d, d, 1))[0]
    assert F.vendi_credit(torch.eye(4, d).double() @ turned.double(), math.inf).abs().max() < 1e-9


def test_vendi_refuses_rows_without_direction():
    with pytest.raises(ValueError, match="row 1 is all zeros"):
        F.vendi_score(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="above 0"):
        F.vendi_score(torch.eye(2), order=0.0)
    with pytest.raises(ValueError, match="ones on its diagonal"):
        F.vendi_score_kernel(2 * torch.eye(3))


@settings(max_examples=20)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_set_scores_ignore_order_and_credits_follow_it(n, seed):
    x, y = rows(n, 3, seed), rows(9, 3, seed + 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for score, credit in (
        (lambda v: F.frechet_distance(v, y), lambda v: F.frechet_credit(v, y)),
        (lambda v: F.mmd(v, y, 1.0), lambda v: F.mmd_credit(v, y, 1.0)),
        (F.vendi_score, F.vendi_credit),
    ):
        assert torch.allclose(score(x), score(x[order]), atol=1e-9)
        assert torch.allclose(credit(x)[order], credit(x[order]), atol=1e-9)
