"""Stable Audio Open (Evans et al., 2407.14358): stereo sound at 44.1 kHz by latent diffusion with a transformer.

Its levels are α = cos(π t / 2), σ = sin(π t / 2), and the network takes t. Its scheduler, in Karras' form (2206.00364)
with unit data, says the same in other coordinates: its level is σ / α = tan(π t / 2), and what it scales its input to
is our x_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmalign.adapters.bases.conditions import token_count, warn_if_cut
from mmalign.adapters.bases.formats import Configs, SoundFormat, sound_scale
from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.adapters.bases.sound_adapter import LatentSounds, SoundAdapter
from mmalign.core.errors import CapabilityError, ConfigError, MissingExtra
from mmalign.core.options import Positive
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel
from mmalign.loading.foreign import Pipeline, Scheduler


@dataclass
class StableAudio(SoundAdapter):
    """`LatentAdapter` around `StableAudioPipeline`; predicts v at times in (0, 1), α = cos(π t / 2), σ = sin(π t / 2).

    With policy `ddpm`: η = 0 is the deterministic solver of first order on the pipeline's own levels, η = 1 its own
    scheduler at `solver_order` 1; the second-order steps it takes by default look back at earlier ones and so are no
    policy.

    Args:
        seconds: length of the sounds; the model's longest by default. The network is told it, as in the pipeline.
        whole: generate latents of the model's full length, as it was trained and as its pipeline does, and cut the
            sound; otherwise only as many as `seconds` needs, which costs less and is not what the model has seen.
        negative_prompt: None for the empty condition of the pipeline.
    """

    seconds: Positive | None = None
    whole: bool = True
    negative_prompt: str | None = None

    prediction: ClassVar[Prediction] = "v"
    pipeline_name: ClassVar[str] = "StableAudioPipeline"
    packages: ClassVar[dict[str, str]] = {"torchsde": "audio"}  # its scheduler's

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Return the autoencoder's rate and channels, and the longest sound that the network has latents for."""
        vae, seconds = configs("vae"), configs("projection_model")
        longest = configs("transformer")["sample_size"] * sound_scale(configs) / vae["sampling_rate"]
        return SoundFormat(vae["sampling_rate"], vae["audio_channels"], min(longest, float(seconds["max_value"])))

    def load_parts(self, device: torch.device) -> None:
        """Load the pipeline, once its scheduler's package is known to be there."""
        _check_installed()
        super().load_parts(device)

    def inspect(self, pipe: Pipeline) -> None:
        """Refuse other schedulers than the published one's kind."""
        _check_scheduler(pipe.scheduler)

    def open_outputs(self, pipe: Pipeline) -> LatentSounds:
        """Set `seconds` and `latent_shape`, (channels, frames), and give the autoencoder."""
        self.seconds = _checked_seconds(self.seconds, pipe)
        samples = int(self.seconds * pipe.vae.config.sampling_rate)
        longest = pipe.transformer.config.sample_size
        frames = longest if self.whole else math.ceil(samples / pipe.vae.hop_length)
        self.latent_shape = (pipe.transformer.config.in_channels, frames)
        return LatentSounds(
            vae=pipe.vae, frames=frames, samples=samples, rows=self.decode_rows, recompute=self.gradient_checkpointing
        )

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """Predict v (B, C, frames)."""
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        width = self.loaded.pipeline.rotary_embed_dim
        places = torch.arange(x.shape[2] + 1, device=x.device)  # the first is the sound's length
        turns = get_1d_rotary_pos_embed(width, places, use_real=True, repeat_interleave_real=False)
        return self.module(x, times, **condition, rotary_embedding=turns, return_dict=False)[0]

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """Return the pipeline's own K + 1 levels, from noise to data."""
        from diffusers import CosineDPMSolverMultistepScheduler

        if num_inference_steps < 2:
            raise ConfigError(
                f"num_inference_steps: {num_inference_steps} starts this scheduler at its lowest level, not at noise; "
                "use more."
            )
        fresh = CosineDPMSolverMultistepScheduler.from_config(self.loaded.pipeline.scheduler.config)
        fresh.set_timesteps(num_inference_steps)
        ratio = fresh.sigmas.to(default_device(self.device), torch.float32)
        return self.level(ratio.atan() * 2 / math.pi)

    def level(self, u: Tensor) -> NoiseLevel:
        """Return the training levels at u in (0, 1), which is the time itself."""
        return NoiseLevel(times=u, alpha=(u * math.pi / 2).cos(), sigma=(u * math.pi / 2).sin())

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L + 2, D) of text and ends, `global_hidden_states` (1, 1, 2 D) of ends."""
        pipe = self.loaded.pipeline
        room = pipe.tokenizer.model_max_length
        warn_if_cut(self.name, text, token_count(pipe.tokenizer, text), room, "shorten it")
        return self._with_ends(pipe.encode_prompt([text], self.device, do_classifier_free_guidance=False))

    def encode_negative(self) -> Condition:
        """Return the negative prompt's condition, or zeros in the place of a text."""
        if self.negative_prompt is None:
            empty = self.encode_text("")
            return empty | {"encoder_hidden_states": torch.zeros_like(empty["encoder_hidden_states"])}
        both = self.loaded.pipeline.encode_prompt([""], self.device, True, negative_prompt=[self.negative_prompt])
        return self._with_ends(both[:1])

    def _with_ends(self, text: Tensor) -> Condition:
        """The text's states (1, L, D) with those of the sound's start and end."""
        start, end = self.loaded.pipeline.encode_duration(0.0, self.seconds, self.device, False, 1)
        return {
            "encoder_hidden_states": torch.cat([text, start, end], 1),
            "global_hidden_states": torch.cat([start, end], 2),
        }


def _check_installed() -> None:
    try:
        import torchsde  # noqa: F401
    except ImportError:
        raise MissingExtra("adapter stable_audio (its scheduler's package torchsde)", "audio") from None


def _check_scheduler(scheduler: Scheduler) -> None:
    """Raise CapabilityError unless it is a `CosineDPMSolverMultistepScheduler` of v over unit data."""
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


def _checked_seconds(seconds: float | None, pipe: Pipeline) -> float:
    """`seconds`, or the model's longest; ConfigError where it makes none of that length."""
    vae, lengths = pipe.vae, pipe.projection_model.config
    longest = pipe.transformer.config.sample_size * vae.hop_length / vae.config.sampling_rate
    if seconds is None:
        return min(longest, float(lengths.max_value))
    if not max(lengths.min_value, 1 / vae.config.sampling_rate) <= seconds <= min(longest, lengths.max_value):
        raise ConfigError(
            f"seconds: {seconds:g} is not a length this model makes; use more than {lengths.min_value:g} and at most "
            f"{min(longest, float(lengths.max_value)):g}."
        )
    return float(seconds)


__all__ = ["StableAudio"]
