"""Levels against diffusers' own schedulers, closed forms and invariants."""

from __future__ import annotations

import inspect
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
    schedulers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.adapters.bases.levels import (
    BY_KEPT,
    BY_RATIO,
    ddim_level,
    ddim_prediction,
    ddim_schedule,
    dynamic_shift,
    flow_level,
    flow_schedule,
)
from mmalign.core.errors import CapabilityError, ConfigError

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim_walk(scheduler, steps):
    """(ᾱ before, ᾱ after) of each step as DDIMScheduler.step takes them."""
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=False)
    ddim.set_timesteps(steps)
    walk = []
    for t in ddim.timesteps.tolist():
        before = t - ddim.config.num_train_timesteps // steps
        after = ddim.alphas_cumprod[before] if before >= 0 else ddim.final_alpha_cumprod
        walk.append((float(ddim.alphas_cumprod[t]), float(after)))
    return ddim.timesteps, walk


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 50, 500, 999, 1000])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("offset", [0, 1])
def test_leading_levels_are_the_steps_ddim_takes(steps, to_one, offset):
    scheduler = PNDMScheduler(**SD, steps_offset=offset, set_alpha_to_one=to_one)
    if (steps, offset) == (1000, 1):
        with pytest.raises(ConfigError, match=r"1000 with steps_offset 1 starts at time 1000, past the last one"):
            ddim_schedule(scheduler, steps)
        return
    times, walk = ddim_walk(scheduler, steps)
    levels = ddim_schedule(scheduler, steps)
    assert torch.equal(levels.times[:-1], times.float()) and levels.times[-1] == 0
    kept = levels.alpha.square()
    torch.testing.assert_close(kept[:-1], torch.tensor([w[0] for w in walk]))
    torch.testing.assert_close(kept[1:], torch.tensor([w[1] for w in walk]))
    torch.testing.assert_close(kept + levels.sigma.square(), torch.ones(steps + 1))


@pytest.mark.parametrize("steps", [1, 4, 10, 40, 250])
def test_trailing_levels_are_the_steps_ddim_takes(steps):
    scheduler = EulerDiscreteScheduler(**SD, timestep_spacing="trailing")
    times, walk = ddim_walk(scheduler, steps)
    levels = ddim_schedule(scheduler, steps)
    assert levels.times[0] == 999
    assert torch.equal(levels.times[:-1], times.float())
    torch.testing.assert_close(levels.alpha[1:].square(), torch.tensor([w[1] for w in walk]))


@pytest.mark.parametrize("steps", [2, 5, 30])
def test_linspace_levels_are_ddims_times_from_end_to_end(steps):
    levels = ddim_schedule(DDIMScheduler(**SD, timestep_spacing="linspace"), steps)
    assert levels.times[:-1].tolist() == np.linspace(0, 999, steps).round()[::-1].tolist()
    assert (levels.sigma[1:] <= levels.sigma[:-1]).all()


SCHEDULERS = sorted(name for name in dir(schedulers) if name.endswith("Scheduler") and hasattr(diffusers, name))


def made(name, **options):
    """A scheduler of diffusers with the options it knows, or None where its class wants others."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    try:
        return kind(**{key: value for key, value in (SD | options).items() if key in known})
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_that_of_the_plain_pipeline_or_refused_by_name(name, spacing):
    if (scheduler := made(name, timestep_spacing=spacing)) is None:
        pytest.skip(f"{name} is made of other options")
    if name not in (*BY_KEPT, *BY_RATIO):
        with pytest.raises(CapabilityError, match=f"{name}: its noise levels are none"):
            ddim_schedule(scheduler, 4)
        with pytest.raises(CapabilityError, match=name):
            ddim_level(scheduler, torch.zeros(1))
        with pytest.raises(CapabilityError, match=name):
            ddim_prediction(scheduler)
        return
    levels, own = ddim_schedule(scheduler, 5), type(scheduler).from_config(scheduler.config)
    own.set_timesteps(5)
    # What a multistep pipeline adds between or twice is the work of its solver, not another level.
    visited = list(dict.fromkeys(own.timesteps.float().tolist()))
    if name == "PNDMScheduler":
        visited = [t for t in visited if t in levels.times.tolist()]
    assert levels.times[:-1].tolist() == visited and len(visited) == 5
    table = torch.from_numpy(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    kept = np.interp(np.array(visited), np.arange(1000), (((1 - table) / table) ** 0.5).numpy())
    ratio = (levels.sigma / levels.alpha)[:-1].double().numpy()
    np.testing.assert_allclose(ratio, kept, rtol=2e-3)
    if hasattr(own, "sigmas"):
        found = list(dict.fromkeys(own.sigmas.double().tolist()))
        np.testing.assert_allclose((levels.sigma / levels.alpha).double().numpy(), found, rtol=1e-5, atol=1e-7)
    else:
        end = getattr(own, "final_alpha_cumprod", torch.tensor(1.0))
        last = int(own.timesteps[-1]) - 1000 // 5
        wanted = own.alphas_cumprod[last] if last >= 0 else end
        assert float(levels.alpha[-1].square()) == pytest.approx(float(wanted), abs=1e-6)


def test_spacings_of_sigmas_are_the_schedulers_own():
    for option in ("use_karras_sigmas", "use_exponential_sigmas"):
        scheduler = EulerDiscreteScheduler(**SD, **{option: True})
        levels = ddim_schedule(scheduler, 6)
        scheduler.set_timesteps(6)
        torch.testing.assert_close(levels.sigma / levels.alpha, scheduler.sigmas, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(levels.times[:-1], scheduler.timesteps.float())


def test_diffusions_that_are_none_are_refused():
    with pytest.raises(CapabilityError, match="UniPCMultistepScheduler: use_flow_sigmas: a rectified flow"):
        ddim_schedule(UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), 4)
    with pytest.raises(CapabilityError, match="beta_schedule 'sigmoid' is not supported; known: linear"):
        ddim_schedule(diffusers.DDPMScheduler(beta_schedule="sigmoid"), 4)


def test_zero_terminal_snr_starts_at_pure_noise():
    scheduler = DDIMScheduler(**SD, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    levels = ddim_schedule(scheduler, 4)
    assert levels.alpha[0].abs() < 1e-6 and levels.sigma[0] == 1


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=30)
def test_a_diffusion_level_is_the_row_of_its_table(u):
    scheduler = PNDMScheduler(**SD)
    level = ddim_level(scheduler, torch.tensor([u], dtype=torch.float32))
    index = min(int(torch.tensor(u, dtype=torch.float32) * 1000), 999)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)[index]
    assert level.times.item() == index
    assert level.alpha.item() == pytest.approx(math.sqrt(kept), rel=1e-4)
    assert level.sigma.item() == pytest.approx(math.sqrt(1 - kept), rel=1e-3)


def test_what_the_network_predicts_is_read_from_the_config():
    assert ddim_prediction(PNDMScheduler()) == "epsilon"
    assert ddim_prediction(PNDMScheduler(prediction_type="v_prediction")) == "v"
    with pytest.raises(
        CapabilityError, match=r"prediction_type 'sample' is not supported; known: epsilon, v_prediction"
    ):
        ddim_prediction(DDIMScheduler(prediction_type="sample"))


@given(st.integers(1, 60), st.floats(0.5, 6), st.integers(16, 8192), st.booleans())
@settings(max_examples=30)
def test_flow_levels_are_the_schedulers_own(steps, shift, tokens, dynamic):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic)
    mu = dynamic_shift(scheduler, tokens)
    levels = flow_schedule(scheduler, steps, mu=mu)
    scheduler.set_timesteps(steps, mu=mu)
    assert torch.equal(levels.sigma, scheduler.sigmas)
    assert torch.equal(levels.times[:-1], scheduler.timesteps)
    assert torch.equal(levels.alpha, 1 - levels.sigma)
    assert levels.sigma[0].item() == pytest.approx(1) and levels.sigma[-1] == 0
    assert (levels.sigma[1:] < levels.sigma[:-1]).all()


def test_flow_levels_do_not_depend_on_what_a_pipeline_did_to_its_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    first = flow_schedule(scheduler, 5)
    scheduler.set_timesteps(9)
    assert torch.equal(flow_schedule(scheduler, 5).sigma, first.sigma)
    assert len(scheduler.sigmas) == 10  # and the other way round


def test_given_sigmas_are_shifted_like_the_pipelines_that_pass_them():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = np.linspace(1, 1 / 4, 4)
    levels = flow_schedule(scheduler, 4, mu=0.8, sigmas=sigmas.tolist())
    expected = math.exp(0.8) / (math.exp(0.8) + (1 / sigmas - 1))
    np.testing.assert_allclose(levels.sigma[:-1].numpy(), expected, rtol=1e-6)


def test_the_dynamic_shift_is_linear_through_its_two_points():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert dynamic_shift(scheduler, 256) == pytest.approx(0.5)
    assert dynamic_shift(scheduler, 4096) == pytest.approx(1.15)
    assert dynamic_shift(FlowMatchEulerDiscreteScheduler(shift=3.0), 256) is None


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_training_levels_are_the_schedulers_training_grid(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    level = flow_level(scheduler, torch.arange(1000, 0, -1) / 1000)
    torch.testing.assert_close(level.sigma, scheduler.sigmas)
    torch.testing.assert_close(level.times, scheduler.timesteps)


def test_schedulers_that_do_not_fit_are_refused():
    with pytest.raises(CapabilityError, match=r"UniPCMultistepScheduler is not a flow-matching Euler scheduler"):
        flow_schedule(UniPCMultistepScheduler(), 4)
    with pytest.raises(CapabilityError, match=r"invert_sigmas"):
        flow_schedule(FlowMatchEulerDiscreteScheduler(invert_sigmas=True), 4)
    with pytest.raises(ConfigError, match=r"num_inference_steps: 0 is not a positive number"):
        flow_schedule(FlowMatchEulerDiscreteScheduler(), 0)
    with pytest.raises(ConfigError, match=r"num_inference_steps: 1001 is more than the 1000 it was trained on"):
        ddim_schedule(PNDMScheduler(), 1001)
