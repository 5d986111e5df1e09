import torch
from torch.distributions import Normal, kl_divergence

from mmalign.policies._gaussian import normal_kl, normal_log_prob


def test_the_density_integrates_to_one() -> None:
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    std = torch.full_like(grid, 0.7)
    density = normal_log_prob(grid[:, None], torch.full_like(grid, 0.3)[:, None], std).exp()
    assert abs(torch.trapezoid(density, grid).item() - 1) < 1e-9


def test_it_is_the_sum_over_the_event_of_torchs_normal() -> None:
    torch.manual_seed(0)
    value, mean = torch.randn(5, 2, 3, 4).double(), torch.randn(5, 2, 3, 4).double()
    std = torch.rand(5).double() + 0.1
    wanted = Normal(mean, std.view(5, 1, 1, 1)).log_prob(value).sum((1, 2, 3))
    torch.testing.assert_close(normal_log_prob(value, mean, std), wanted, rtol=1e-12, atol=1e-12)


def test_the_kl_is_torchs_and_zero_for_equal_gaussians() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 3, 2).double(), torch.randn(4, 3, 2).double()
    s, r = torch.rand(4).double() + 0.1, torch.rand(4).double() + 0.1
    wanted = kl_divergence(Normal(a, s.view(4, 1, 1)), Normal(b, r.view(4, 1, 1))).sum((1, 2))
    torch.testing.assert_close(normal_kl(a, s, b, r), wanted, rtol=1e-12, atol=1e-12)
    assert normal_kl(a, s, a, s).eq(0).all()


def test_low_precision_is_lifted_before_squaring() -> None:
    value, mean = torch.randn(2, 64).bfloat16(), torch.randn(2, 64).bfloat16()
    std = torch.tensor([0.1, 0.2]).bfloat16()
    found = normal_log_prob(value, mean, std)
    assert found.dtype == torch.float32
    wanted = Normal(mean.double(), std.double()[:, None]).log_prob(value.double()).sum(1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-3)
