"""Noise levels read from diffusers schedulers, without their state.

Every call works on a fresh scheduler made from the config, so nothing a pipeline did to its own changes the answer.

Rectified flow (Liu et al., 2209.03003): x_t = (1 - σ) x_0 + σ ε, the network takes 1000 σ. A shift s moves the levels
towards noise, σ' = s σ / (1 + (s - 1) σ) (Esser et al., 2403.03206, eq. 23); with dynamic shifting s = exp(μ), μ linear
in the number of image tokens.

Diffusion: x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε (Ho et al., 2006.11239, eq. 4), sampled at the times DDIM takes
(Song et al., 2010.02502); spacings as in Lin et al., 2305.08891, table 2.

Cosine: α = cos(π t / 2), σ = sin(π t / 2), and the network takes t. A scheduler in Karras' form (2206.00364) with unit
data says the same in other coordinates: its level is σ / α = tan(π t / 2), and what it scales its input to is our x_t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.protocols import Prediction
from mmalign.core.types import NoiseLevel


def flow_schedule(
    scheduler: Any,
    num_inference_steps: int,
    device: torch.device | str = "cpu",
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
) -> NoiseLevel:
    """The K + 1 levels a flow pipeline steps through; `mu` where the scheduler shifts by resolution.

    `sigmas` are the unshifted levels of pipelines that pass their own (K values), None for the scheduler's.
    """
    _check_steps(num_inference_steps)
    fresh = _fresh_flow(scheduler)
    given: dict[str, Any] = (
        {"sigmas": list(sigmas)} if sigmas is not None else {"num_inference_steps": num_inference_steps}
    )
    fresh.set_timesteps(**given, mu=mu)
    levels = fresh.sigmas.to(device, torch.float32)
    times = torch.cat([fresh.timesteps.to(device, torch.float32), levels.new_zeros(1)])
    return NoiseLevel(times=times, alpha=1 - levels, sigma=levels)


def flow_level(scheduler: Any, u: Tensor) -> NoiseLevel:
    """Training levels at u: the config's static shift of σ = u; unshifted where the shift depends on resolution.

    That is the grid a flow scheduler holds before `set_timesteps`, which diffusers' training scripts draw from.
    """
    config = _fresh_flow(scheduler).config
    shift = 1.0 if config.use_dynamic_shifting else float(config.shift)
    sigma = shift * u / (1 + (shift - 1) * u)
    return NoiseLevel(times=sigma * config.num_train_timesteps, alpha=1 - sigma, sigma=sigma)


def dynamic_shift(scheduler: Any, tokens: int) -> float | None:
    """μ for `tokens` image tokens: linear through (base_image_seq_len, base_shift), (max_image_seq_len, max_shift).

    None where the scheduler does not shift by resolution.
    """
    c = scheduler.config
    if not c.use_dynamic_shifting:
        return None
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return float(c.base_shift + slope * (tokens - c.base_image_seq_len))


def ddim_schedule(scheduler: Any, num_inference_steps: int, device: torch.device | str = "cpu") -> NoiseLevel:
    """The K + 1 levels of `DDIMScheduler.from_config(scheduler.config)`: its K times, then where it ends.

    The end is its `final_alpha_cumprod` (1 with `set_alpha_to_one`, else ᾱ_0). Each step goes from one level to the
    next; DDIMScheduler.step itself goes to `t - T // K`, which is the same for "leading", and for "trailing" where K
    divides T, and misses its own next time by rounding otherwise.
    """
    _check_steps(num_inference_steps)
    fresh = _fresh_ddim(scheduler)
    train_steps = fresh.config.num_train_timesteps
    if num_inference_steps > train_steps:
        raise ConfigError(
            f"num_inference_steps: {num_inference_steps} is more than the {train_steps} it was trained on."
        )
    fresh.set_timesteps(num_inference_steps)
    times = fresh.timesteps
    if int(times[0]) >= train_steps:
        raise ConfigError(
            f"num_inference_steps: {num_inference_steps} with steps_offset {fresh.config.steps_offset} starts at time "
            f"{int(times[0])}, past the last one trained ({train_steps - 1}); use fewer."
        )
    before = int(times[-1]) - train_steps // num_inference_steps
    end = fresh.alphas_cumprod[before] if before >= 0 else fresh.final_alpha_cumprod
    kept = torch.cat([fresh.alphas_cumprod[times], end.reshape(1)]).to(device)
    at = torch.cat([times.float(), torch.zeros(1)]).to(device)
    return NoiseLevel(times=at, alpha=kept.sqrt(), sigma=(1 - kept).sqrt())


def ddim_level(scheduler: Any, u: Tensor) -> NoiseLevel:
    """Training levels at u: time floor(u T) of the T it was trained on."""
    fresh = _fresh_ddim(scheduler)
    train_steps = fresh.config.num_train_timesteps
    index = (u * train_steps).long().clamp(0, train_steps - 1)
    kept = fresh.alphas_cumprod.to(u.device)[index]
    return NoiseLevel(times=index.float(), alpha=kept.sqrt(), sigma=(1 - kept).sqrt())


def ddim_prediction(scheduler: Any) -> Prediction:
    """What the network predicts, from the scheduler's config; CapabilityError for anything but ε and v."""
    stated = scheduler.config.get("prediction_type", "epsilon")
    known: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}
    if stated not in known:
        raise CapabilityError(f"prediction_type '{stated}' is not supported; known: {', '.join(known)}.")
    return known[stated]


def check_cosine(scheduler: Any) -> None:
    """CapabilityError unless `scheduler` is a `CosineDPMSolverMultistepScheduler` of v over unit data."""
    from diffusers import CosineDPMSolverMultistepScheduler

    if not isinstance(scheduler, CosineDPMSolverMultistepScheduler):
        raise CapabilityError(
            f"{type(scheduler).__name__}: the levels of this model are read from a CosineDPMSolverMultistepScheduler; "
            "save the pipeline with it."
        )
    config = scheduler.config
    if config.prediction_type != "v_prediction" or config.sigma_data != 1:
        raise CapabilityError(
            f"prediction_type '{config.prediction_type}' with sigma_data {config.sigma_data:g} is not supported; "
            "known: 'v_prediction' with 1."
        )


def cosine_schedule(scheduler: Any, num_inference_steps: int, device: torch.device | str = "cpu") -> NoiseLevel:
    """The K + 1 levels of a `CosineDPMSolverMultistepScheduler`."""
    from diffusers import CosineDPMSolverMultistepScheduler

    _check_steps(num_inference_steps)
    if num_inference_steps == 1:
        raise ConfigError("num_inference_steps: 1 starts this scheduler at its lowest level, not at noise; use more.")
    fresh = CosineDPMSolverMultistepScheduler.from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps)
    return cosine_level(fresh.sigmas.to(device, torch.float32).atan() * 2 / math.pi)


def cosine_level(t: Tensor) -> NoiseLevel:
    """Levels at times t in [0, 1]."""
    return NoiseLevel(times=t, alpha=(t * math.pi / 2).cos(), sigma=(t * math.pi / 2).sin())


def _fresh_flow(scheduler: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise CapabilityError(
            f"{type(scheduler).__name__} is not a flow-matching Euler scheduler; "
            "save the pipeline with FlowMatchEulerDiscreteScheduler and its shift."
        )
    if scheduler.config.invert_sigmas:
        raise CapabilityError("invert_sigmas: levels that rise towards data are not supported.")
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)


def _fresh_ddim(scheduler: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(scheduler.config)


def _check_steps(count: int) -> None:
    if count < 1:
        raise ConfigError(f"num_inference_steps: {count} is not a positive number.")
