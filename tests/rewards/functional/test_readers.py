"""What follows from readers' log-probs, against closed forms and scipy."""

import pytest
import torch

from mmalign.rewards.functional import density_ratio, follow_up_likelihood, kendall_tau, mean_log_prob

RNG = torch.Generator().manual_seed(0)


def test_the_density_ratio_of_gaussians_is_the_closed_form() -> None:
    """log N(x; 1, 1) - log N(x; 0, 1) = Σ (x - 1/2), whatever the steps that the densities are split in."""
    x = torch.randn(5, 3, generator=RNG, dtype=torch.float64)
    strong = torch.distributions.Normal(1.0, 1.0).log_prob(x)
    weak = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1, keepdim=True)
    assert torch.allclose(density_ratio(strong, weak).double(), (x - 0.5).sum(1), atol=1e-6)


def test_means_leave_masked_steps_out() -> None:
    table = torch.tensor([[-1.0, -3.0, -100.0], [-2.0, -5.0, -5.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_log_prob(table, mask).tolist() == [-2.0, 0.0]


def test_follow_ups_by_hand() -> None:
    good, bad = [torch.tensor([-1.0, -4.0]), torch.tensor([-3.0, -2.0])], [torch.tensor([-5.0, -1.0])]
    assert follow_up_likelihood(good, bad).tolist() == [3.0, -2.0]
    assert follow_up_likelihood(good, []).tolist() == [-2.0, -3.0]
    assert follow_up_likelihood(bad, good).tolist() == [-3.0, 2.0]


@pytest.mark.parametrize("size", [2, 5, 9])
def test_tau_is_that_of_scipy(size: int) -> None:
    from scipy.stats import kendalltau

    for _ in range(5):
        one, other = torch.randn(2, size, generator=RNG, dtype=torch.float64)
        assert float(kendall_tau(one, other)) == pytest.approx(kendalltau(one, other).statistic)
    assert float(kendall_tau(one, one)) == 1 and float(kendall_tau(one, -one)) == -1
    assert float(kendall_tau(one, torch.zeros(size))) == 0
