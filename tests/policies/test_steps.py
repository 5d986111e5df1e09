"""Sampler steps against formulas worked out here in float64, against diffusers, and on Gaussians with known marginals.

Every step is affine in x for Gaussian data, so means and variances are propagated exactly instead of estimated.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from mmalign.core.protocols import Prediction
from mmalign.policies._steps import (
    clean_and_noise,
    cps,
    dance,
    flow_sde,
    normal_log_prob,
    ode,
    posterior_std,
    renoise,
    target,
)

T, T_NEXT = 0.6, 0.45


def row(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def point() -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    x, y, z = (torch.from_numpy(rng.normal(size=(1, 3, 2))) for _ in range(3))
    return x, y, z


def test_flow_sde_is_flow_grpos_formula() -> None:
    x, v, z = point()
    dt, sigma = T_NEXT - T, 0.7 * math.sqrt(T / (1 - T))
    mean = x.numpy() * (1 + sigma**2 / (2 * T) * dt) + v.numpy() * (1 + sigma**2 * (1 - T) / (2 * T)) * dt
    step = flow_sde(x, row(T), row(T_NEXT), v, z, 0.7, row(0.9)[0])
    np.testing.assert_allclose(step.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(step.std, sigma * math.sqrt(-dt), rtol=1e-12)
    np.testing.assert_allclose(step.next, mean + sigma * math.sqrt(-dt) * z.numpy(), rtol=1e-12)


@pytest.mark.parametrize("steps", [4, 10, 40])
def test_flow_sdes_first_step_has_std_a_whatever_the_number_of_steps(steps: int) -> None:
    x, v, z = point()
    second = row(1 - 1 / steps)
    step = flow_sde(x, row(1.0), second, v, z, 0.7, second[0])
    np.testing.assert_allclose(step.std, 0.7, rtol=1e-12)
    drift = 0.7**2 / (1 - second.item()) / 2 * -1 / steps  # sigma_t^2 / (2 t) dt at t = 1
    np.testing.assert_allclose(step.mean, x * (1 + drift) + v * (-1 / steps), rtol=1e-12)


def test_dance_is_dancegrpos_formula() -> None:
    x, v, z = point()
    eta, dt = 0.3, T_NEXT - T
    clean = x.numpy() - T * v.numpy()
    score = -(x.numpy() - (1 - T) * clean) / T**2
    mean = x.numpy() + v.numpy() * dt - 0.5 * eta**2 * score * dt
    step = dance(x, row(T), row(T_NEXT), v, z, eta)
    np.testing.assert_allclose(step.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(step.std, eta * math.sqrt(-dt), rtol=1e-12)


def test_cps_is_its_papers_formula() -> None:
    x, v, z = point()
    std = T_NEXT * math.sin(0.8 * math.pi / 2)
    clean, noise = x.numpy() - T * v.numpy(), x.numpy() + (1 - T) * v.numpy()
    mean = (1 - T_NEXT) * clean + math.sqrt(T_NEXT**2 - std**2) * noise
    step = cps(x, row(T), row(T_NEXT), v, z, 0.8)
    np.testing.assert_allclose(step.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(step.std, std, rtol=1e-12)


@pytest.mark.parametrize("t", [1.0, T])
def test_zero_noise_is_the_ode(t: float) -> None:
    x, v, z = point()
    wanted = ode(x, row(t), row(T_NEXT), v).next
    for step in (
        flow_sde(x, row(t), row(T_NEXT), v, z, 0.0, row(T_NEXT)[0]),
        dance(x, row(t), row(T_NEXT), v, z, 0.0),
        cps(x, row(t), row(T_NEXT), v, z, 0.0),
    ):
        torch.testing.assert_close(step.next, wanted, rtol=1e-12, atol=1e-12)
        assert step.std.item() == 0


def velocity(x: Tensor, t: Tensor, mean: float, std: float) -> Tensor:
    """E[ε − x0 | x_t = x] for x0 ~ N(mean, std²)."""
    variance = (1 - t) ** 2 * std**2 + t**2
    centred = x - (1 - t) * mean
    return t / variance * centred - (mean + (1 - t) * std**2 / variance * centred)


def marginal(kind: str, steps: int, mean: float, std: float, stop: int) -> tuple[float, float]:
    """Mean and std after `stop` of `steps` uniform steps from N(0, 1), by exact propagation of an affine map."""
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    m, var = 0.0, 1.0
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for k in range(stop):
        t, t_next = grid[k].expand(2), grid[k + 1].expand(2)
        v = velocity(probe, t[:, None], mean, std)
        at = (probe, t, t_next, v)
        step = {
            "ode": partial(ode, *at),
            "flow_sde": partial(flow_sde, *at, None, 0.7, grid[1]),
            "dance": partial(dance, *at, None, 0.3),
            "cps": partial(cps, *at, None, 0.8),
        }[kind]()
        offset, gain = step.mean[0].item(), (step.mean[1] - step.mean[0]).item()
        m, var = gain * m + offset, gain**2 * var + step.std[0].item() ** 2
    return m, math.sqrt(var)


@pytest.mark.parametrize("kind", ["ode", "flow_sde", "dance"])
def test_the_sdes_keep_the_marginals_as_steps_grow(kind: str) -> None:
    mean, std, errors = 0.5, 0.4, []
    for steps in (40, 160, 640):
        stop = steps * 3 // 4
        t = 1 - stop / steps
        found_mean, found_std = marginal(kind, steps, mean, std, stop)
        wanted = math.sqrt((1 - t) ** 2 * std**2 + t**2)
        errors.append(abs(found_mean - (1 - t) * mean) + abs(found_std - wanted))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 3e-3
    # Four times the steps: a quarter of the error, or half where Flow-SDE's diffusion is singular at t = 1.
    assert errors[-1] < (0.65 if kind == "flow_sde" else 0.3) * errors[-2]


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_cps_keeps_the_marginals_of_one_point_exactly_at_any_number_of_steps(steps: int) -> None:
    for stop in range(1, steps):
        t = 1 - stop / steps
        found_mean, found_std = marginal("cps", steps, 0.5, 0.0, stop)
        assert found_mean == pytest.approx((1 - t) * 0.5, abs=1e-12)
        assert found_std == pytest.approx(t, abs=1e-12)


def test_cps_narrows_spread_data_and_more_steps_do_not_help() -> None:
    """Fresh noise replaces the noise estimate, whose share of the data's spread is lost: 0.40 becomes 0.32."""
    ends = [marginal("cps", steps, 0.5, 0.4, steps - 1) for steps in (160, 640)]
    assert [m for m, _ in ends] == pytest.approx([0.5 * (1 - 1 / k) for k in (160, 640)], abs=1e-9)
    assert [s for _, s in ends] == pytest.approx([0.3156, 0.3208], abs=1e-3)


def test_flow_sde_leaves_more_noise_than_the_level_and_cps_does_not() -> None:
    assert marginal("flow_sde", 10, 0.5, 0.0, 8)[1] > 1.1 * 0.2
    assert marginal("cps", 10, 0.5, 0.0, 8)[1] == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers_step_by_step(prediction: str, eta: float) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(20)
    kind: Prediction = "epsilon" if prediction == "epsilon" else "v"
    table = scheduler.alphas_cumprod.double()
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4).double()
    for timestep in scheduler.timesteps.tolist():
        previous = timestep - scheduler.config.num_train_timesteps // 20
        after = table[previous] if previous >= 0 else scheduler.final_alpha_cumprod.double()
        alpha, sigma = table[timestep].sqrt().expand(2), (1 - table[timestep]).sqrt().expand(2)
        alpha_next, sigma_next = after.sqrt().expand(2), (1 - after).sqrt().expand(2)
        output, noise = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()
        wanted = scheduler.step(output, timestep, x, eta=eta, variance_noise=noise).prev_sample
        clean, epsilon = clean_and_noise(kind, x, output, alpha, sigma)
        std = eta * posterior_std(alpha, sigma, alpha_next, sigma_next)
        found = renoise(clean, epsilon, alpha_next, sigma_next, std, noise).next
        torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=1e-4)
        if eta == 1:
            variance = scheduler._get_variance(timestep, previous)
            assert std[0].item() ** 2 == pytest.approx(variance.item(), rel=1e-3, abs=1e-9)
        x = found


def test_posterior_std_is_full_resampling_from_pure_noise_and_nothing_at_the_same_level() -> None:
    one, half = row(1.0), row(math.sqrt(0.5))
    assert posterior_std(row(0.0), one, half, half).item() == pytest.approx(math.sqrt(0.5))
    assert posterior_std(half, half, half, half).item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v"])
def test_predictions_convert_both_ways(kind: Prediction) -> None:
    clean, noise, _ = point()
    alpha, sigma = (row(0.4), row(0.6)) if kind == "flow" else (row(0.8), row(0.6))
    x = alpha * clean + sigma * noise
    found = clean_and_noise(kind, x, target(kind, clean, noise, alpha, sigma), alpha, sigma)
    torch.testing.assert_close(found, (clean, noise), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["flow", "v"])
def test_an_error_of_velocity_is_an_error_of_noise_over_alpha(kind: Prediction) -> None:
    clean, noise, error = point()
    alpha, sigma = (row(0.4), row(0.6)) if kind == "flow" else (row(0.8), row(0.6))
    x = alpha * clean + sigma * noise
    wrong = target(kind, clean, noise, alpha, sigma) + error
    epsilon = clean_and_noise(kind, x, wrong, alpha, sigma)[1]
    torch.testing.assert_close(epsilon - noise, alpha * error, rtol=1e-10, atol=1e-10)


def test_the_density_integrates_to_one() -> None:
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    std = torch.full_like(grid, 0.7)
    density = normal_log_prob(grid[:, None], torch.full_like(grid, 0.3)[:, None], std).exp()
    assert abs(torch.trapezoid(density, grid).item() - 1) < 1e-9


def test_a_log_prob_is_the_sum_over_the_event_of_torchs_normal() -> None:
    torch.manual_seed(0)
    value, mean = torch.randn(5, 2, 3, 4).double(), torch.randn(5, 2, 3, 4).double()
    std = torch.rand(5).double() + 0.1
    wanted = Normal(mean, std.view(5, 1, 1, 1)).log_prob(value).sum((1, 2, 3))
    torch.testing.assert_close(normal_log_prob(value, mean, std), wanted, rtol=1e-12, atol=1e-12)


def test_low_precision_is_lifted_before_squaring() -> None:
    value, mean = torch.randn(2, 64).bfloat16(), torch.randn(2, 64).bfloat16()
    std = torch.tensor([0.1, 0.2]).bfloat16()
    found = normal_log_prob(value, mean, std)
    assert found.dtype == torch.float32
    wanted = Normal(mean.double(), std.double()[:, None]).log_prob(value.double()).sum(1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-3)
