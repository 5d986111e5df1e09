"""Noise levels read from the schedulers of diffusers, without their state: what a diffusers family is mixed with.

    class MyImages(FlowLevels, ImageAdapter): ...

Every call works on a fresh scheduler made from the config, so nothing a pipeline did to its own changes the answer.

Rectified flow (Liu et al., 2209.03003): x_t = (1 - σ) x_0 + σ ε, the network takes 1000 σ. A shift s moves the levels
towards noise, σ' = s σ / (1 + (s - 1) σ) (Esser et al., 2403.03206, eq. 23); with dynamic shifting s = exp(μ), μ linear
in the number of image tokens.

Diffusion: x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε (Ho et al., 2006.11239, eq. 4), sampled at the times DDIM takes
(Song et al., 2010.02502); spacings as in Lin et al., 2305.08891, table 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from mmalign.adapters.bases.diffusers_adapter import Loaded
from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Device, Tensor
from mmalign.core.types import NoiseLevel
from mmalign.loading.foreign import Pipeline, Scheduler

BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
#: Schedulers of diffusers that keep ᾱ and step through DDIM's times.
BY_KEPT = ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler")
#: Schedulers of diffusers that keep σ / α of the same betas, at times of their own.
BY_RATIO = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)


class FlowLevels:
    """Levels of a rectified flow, whose network predicts the velocity ε - x_0."""

    prediction: ClassVar[Prediction] = "flow"

    device: Device | str | None
    loaded: Loaded

    @property
    def scheduler(self) -> Scheduler:
        """The flow-matching scheduler that levels are read from."""
        return self.loaded.pipeline.scheduler

    def image_tokens(self) -> int | None:
        """Count the tokens of an image, by which the pipeline shifts its levels; None where it does not."""
        return None

    def sigmas(self, num_inference_steps: int) -> Sequence[float] | None:
        """Return the K unshifted levels of a pipeline that passes its own; None for the scheduler's."""
        return None

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """Return the pipeline's own K + 1 levels from noise to data, shifted as its scheduler says."""
        tokens = self.image_tokens()
        shift = None if tokens is None else dynamic_shift(self.scheduler, tokens)
        sigmas = self.sigmas(num_inference_steps)
        return flow_schedule(self.scheduler, num_inference_steps, default_device(self.device), shift, sigmas)

    def level(self, u: Tensor) -> NoiseLevel:
        """Return the training levels at u in (0, 1), see `flow_level`; of the shape of u."""
        return flow_level(self.scheduler, u)


class DiffusionLevels:
    """DDIM's levels for the scheduler's config, whichever scheduler that is; x_0 is never clipped."""

    prediction: Prediction = "epsilon"  # or v: loading reads which

    device: Device | str | None
    loaded: Loaded

    def inspect(self, pipe: Pipeline) -> None:
        """Read from the scheduler what the network predicts; CapabilityError for anything but ε and v."""
        self.prediction = ddim_prediction(pipe.scheduler)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """Return the K + 1 levels from noise to data of the scheduler's config, see `ddim_schedule`."""
        return ddim_schedule(self.loaded.pipeline.scheduler, num_inference_steps, default_device(self.device))

    def level(self, u: Tensor) -> NoiseLevel:
        """Return the training levels at u in (0, 1); of the shape of u."""
        return ddim_level(self.loaded.pipeline.scheduler, u)


def flow_schedule(
    scheduler: Scheduler,
    num_inference_steps: int,
    device: torch.device | str = "cpu",
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
) -> NoiseLevel:
    """Return the K + 1 levels a flow pipeline steps through; `mu` where the scheduler shifts by resolution.

    `sigmas` are the unshifted levels of pipelines that pass their own (K values), None for the scheduler's.
    """
    _check_steps(num_inference_steps)
    fresh = _fresh_flow(scheduler)
    arguments: dict[str, Any] = (
        {"sigmas": list(sigmas)} if sigmas is not None else {"num_inference_steps": num_inference_steps}
    )
    fresh.set_timesteps(**arguments, mu=mu)
    levels = fresh.sigmas.to(device, torch.float32)
    times = torch.cat([fresh.timesteps.to(device, torch.float32), levels.new_zeros(1)])
    return NoiseLevel(times=times, alpha=1 - levels, sigma=levels)


def flow_level(scheduler: Scheduler, u: Tensor) -> NoiseLevel:
    """Return training levels at u: the config's static shift of σ = u; unshifted where the shift depends on resolution.

    That is the grid a flow scheduler holds before `set_timesteps`, which diffusers' training scripts draw from.
    """
    config = _fresh_flow(scheduler).config
    shift = 1.0 if config.use_dynamic_shifting else float(config.shift)
    sigma = shift * u / (1 + (shift - 1) * u)
    return NoiseLevel(times=sigma * config.num_train_timesteps, alpha=1 - sigma, sigma=sigma)


def dynamic_shift(scheduler: Scheduler, tokens: int) -> float | None:
    """Return μ, linear in `tokens` from (base_image_seq_len, base_shift) to (max_image_seq_len, max_shift).

    None where the scheduler does not shift by resolution.
    """
    c = scheduler.config
    if not c.use_dynamic_shifting:
        return None
    slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
    return float(c.base_shift + slope * (tokens - c.base_image_seq_len))


def ddim_schedule(scheduler: Scheduler, num_inference_steps: int, device: torch.device | str = "cpu") -> NoiseLevel:
    """Return the K + 1 levels a diffusion pipeline with this scheduler steps through: its K times, then its end.

    Schedulers that keep ᾱ (DDIM, DDPM, PNDM) have `DDIMScheduler`'s levels. Those that keep σ / α (Euler's and
    DPM-Solver's kin) have their own: α = 1 / sqrt(1 + s²), σ = s α for s = σ / α; what a second-order one visits twice
    counts once.

    DDIM's end is its `final_alpha_cumprod` (1 with `set_alpha_to_one`, else ᾱ_0). Each step goes from one level to the
    next; DDIMScheduler.step itself goes to `t - T // K`, which is the same for "leading", and for "trailing" where K
    divides T, and misses its own next time by rounding otherwise.
    """
    _check_steps(num_inference_steps)
    _check_diffusion(scheduler)
    if type(scheduler).__name__ in BY_RATIO:
        return _ratio_schedule(scheduler, num_inference_steps, device)
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
    alpha_bar = torch.cat([fresh.alphas_cumprod[times], end.reshape(1)]).to(device)
    at = torch.cat([times.float(), torch.zeros(1)]).to(device)
    return NoiseLevel(times=at, alpha=alpha_bar.sqrt(), sigma=(1 - alpha_bar).sqrt())


def ddim_level(scheduler: Scheduler, u: Tensor) -> NoiseLevel:
    """Return training levels at u in (0, 1): those of time floor(u T) of the T it was trained on."""
    _check_diffusion(scheduler)
    fresh = _fresh_ddim(scheduler)
    train_steps = fresh.config.num_train_timesteps
    index = (u * train_steps).long().clamp(0, train_steps - 1)
    alpha_bar = fresh.alphas_cumprod.to(u.device)[index]
    return NoiseLevel(times=index.float(), alpha=alpha_bar.sqrt(), sigma=(1 - alpha_bar).sqrt())


def ddim_prediction(scheduler: Scheduler) -> Prediction:
    """Read what the network predicts from the scheduler's config; CapabilityError for anything but ε and v.

    Also for a scheduler whose levels are not known to be those of its pipeline.
    """
    _check_diffusion(scheduler)
    stated = scheduler.config.get("prediction_type", "epsilon")
    known: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}
    if stated not in known:
        raise CapabilityError(f"prediction_type '{stated}' is not supported; known: {', '.join(known)}.")
    return known[stated]


def _fresh_flow(scheduler: Scheduler) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise CapabilityError(
            f"{type(scheduler).__name__} is not a flow-matching Euler scheduler; "
            "save the pipeline with FlowMatchEulerDiscreteScheduler and its shift."
        )
    if scheduler.config.invert_sigmas:
        raise CapabilityError("invert_sigmas: levels that rise towards data are not supported.")
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)


def _ratio_schedule(scheduler: Scheduler, num_inference_steps: int, device: torch.device | str) -> NoiseLevel:
    """The levels of a scheduler that keeps σ / α."""
    train_steps = scheduler.config.num_train_timesteps
    if num_inference_steps > train_steps:
        raise ConfigError(
            f"num_inference_steps: {num_inference_steps} is more than the {train_steps} it was trained on."
        )
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(num_inference_steps)
    times, ratio = fresh.timesteps.double(), fresh.sigmas.double()
    first = torch.ones(len(ratio), dtype=torch.bool)
    first[1:] = ratio[1:] != ratio[:-1]  # Heun stands at each level twice
    ratio, times = ratio[first], torch.cat([times, times.new_zeros(len(ratio) - len(times))])[first]
    if not ratio.isfinite().all() or float(times[0]) >= train_steps:
        raise ConfigError(
            f"num_inference_steps: {num_inference_steps} makes no levels with {type(scheduler).__name__} of this "
            "configuration; use another number."
        )
    alpha = (1 + ratio.square()).rsqrt()
    level = NoiseLevel(times=times.float(), alpha=alpha.float(), sigma=(ratio * alpha).float())
    return NoiseLevel(times=level.times.to(device), alpha=level.alpha.to(device), sigma=level.sigma.to(device))


def _check_diffusion(scheduler: Scheduler) -> None:
    """Raise CapabilityError unless the scheduler's levels follow from betas, as its network was trained with."""
    name, known = type(scheduler).__name__, (*BY_KEPT, *BY_RATIO)
    if name not in known:
        raise CapabilityError(
            f"{name}: its noise levels are none of a diffusion by betas that is known here; save the pipeline with one "
            f"of {', '.join(known)}, if its network was trained with betas."
        )
    config = scheduler.config
    if config.get("use_flow_sigmas"):
        raise CapabilityError(f"{name}: use_flow_sigmas: a rectified flow, where this family is a diffusion.")
    if (betas := config.get("beta_schedule", "linear")) not in BETAS and config.get("trained_betas") is None:
        raise CapabilityError(f"{name}: beta_schedule '{betas}' is not supported; known: {', '.join(BETAS)}.")


def _fresh_ddim(scheduler: Scheduler) -> Any:
    from diffusers import DDIMScheduler

    config = scheduler.config
    # diffusers replaces what another class had by default with DDIM's own default: what holds there holds here.
    same = {name: config[name] for name in ("set_alpha_to_one", "timestep_spacing", "steps_offset") if name in config}
    return DDIMScheduler.from_config(config, **same)


def _check_steps(count: int) -> None:
    if count < 1:
        raise ConfigError(f"num_inference_steps: {count} is not a positive number.")
