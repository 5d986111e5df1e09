"""Families that diffuse log-mel spectrograms with a U-Net: AudioLDM, MusicLDM, AudioLDM 2.

Latents become sound and come back by an autoencoder and a vocoder, differentiable, in float32:

x → z = x / scaling_factor → log-mel (B, 1, F, M) → sound (B, 1, F · hop). A vocoder says its rate, hop and bands, but
not how its spectrograms were made; `Mel` does, for the way back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.diffusers_adapter import NegativeTextAdapter, by_rows, device_of_weights
from mmalign.adapters.bases.formats import Configs, SoundFormat, image_scale
from mmalign.adapters.bases.levels import DiffusionLevels
from mmalign.adapters.bases.pretrained_adapter import default_device
from mmalign.adapters.bases.sound_adapter import SoundAdapter, SoundDecoder, checked_sound
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import Positive
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio
from mmalign.loading.foreign import Pipeline, PretrainedModel
from mmalign.media.mel import LogMel


@dataclass(frozen=True)
class Mel:
    """How a checkpoint's spectrograms were made: natural logarithms of mel amplitudes.

    The defaults are those of AudioLDM, AudioLDM 2 and MusicLDM (haoheliu/AudioLDM-training-finetuning).

    Args:
        window: samples of a frame (periodic Hann).
        low, high: of the bands, Hz; None is half the rate.
        floor: amplitudes below it are silence.
        frames: where frame k is centred: "between" samples k hop and (k + 1) hop, over reflected ends (HiFi-GAN's
            convention), or "on" sample k hop, over silent ends.
    """

    window: int = 1024
    low: float = 0.0
    high: float | None = None
    floor: float = 1e-5
    frames: Literal["between", "on"] = "between"

    def __post_init__(self) -> None:
        faults = []
        if self.window < 2:
            faults.append(f"window: {self.window} is no frame; use 2 samples or more.")
        if self.floor <= 0:
            faults.append(f"floor: {self.floor:g} has no logarithm; use a positive amplitude.")
        if faults:
            raise ConfigError(faults)

    def of(self, waves: Float[Tensor, "B S"], rate: int, hop: int, bands: int) -> Float[Tensor, "B F M"]:
        """Return log-mel spectrograms of S // hop frames, in the waves' own precision; slaney's scale and areas."""
        if self.frames == "on":
            waves = torch.nn.functional.pad(waves, (self.window // 2, self.window // 2))
        else:
            before = max(0, self.window - hop) // 2
            waves = torch.nn.functional.pad(
                waves[:, None], (before, max(0, self.window - hop) - before), mode="reflect"
            )[:, 0]
        window = torch.hann_window(self.window, dtype=waves.dtype, device=waves.device)
        spectrum = torch.stft(waves, self.window, hop, window=window, center=False, return_complex=True)
        bank = LogMel(rate, self.window, hop, bands, self.low, self.high or rate / 2).filters()
        amplitudes = spectrum.abs().transpose(1, 2) @ bank.to(waves)
        return amplitudes.clamp_min(self.floor).log()


@dataclass(kw_only=True)
class LatentMels(SoundDecoder):
    """An `AutoencoderKL` over log-mel spectrograms and a `SpeechT5HifiGan`; one channel of sound.

    `frames`: of the spectrogram, a multiple of the autoencoder's factor. `samples`: of the sound.
    """

    vae: PretrainedModel
    vocoder: PretrainedModel
    frames: int
    samples: int
    mel: Mel
    rows: int = 8
    recompute: bool = False

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.vocoder.config.sampling_rate)

    @without_gradient
    def latents(self, audio: Audio) -> Float[Tensor, "B C t f"]:
        """Return the mode of the encoder's distribution, float32; silence follows a sound shorter than `samples`.

        What a mask hides is silence too. No rate is converted, no channels are mixed.

        Raises:
            MediaError: another rate, several channels, samples that are not finite, or more than are generated.
        """
        sound = checked_sound(audio, self.rate, 1, self.samples).to(device_of_weights(self.vae), torch.float32)
        config = self.vocoder.config
        hop = math.prod(config.upsample_rates)
        sound = torch.nn.functional.pad(sound[:, 0], (0, self.frames * hop - sound.shape[2]))
        with torch.autocast(sound.device.type, enabled=False):
            seen = self.mel.of(sound, self.rate, hop, config.model_in_dim)[:, None]
            return by_rows(self._latent, seen, 1)  # a row's latents do not depend on the others

    def _sound(self, x: Tensor) -> Tensor:
        seen = self.vae.decode(x / self.vae.config.scaling_factor).sample
        return self.vocoder(seen[:, 0])[:, None]

    def _latent(self, seen: Tensor) -> Tensor:
        return self.vae.encode(seen).latent_dist.mode() * self.vae.config.scaling_factor


def mel_sounds(pipe: Pipeline, model: str, seconds: float | None, mel: Mel, rows: int, recompute: bool) -> LatentMels:
    """Make the two ends of a pipeline with `vae` and `vocoder`, for sounds of `seconds` (None: the U-Net's own).

    As in the pipelines, latents are rounded up to whole ones and the sound is cut.

    Raises:
        CapabilityError: an autoencoder that makes no spectrogram of the vocoder's.
        ConfigError: a length that is no latent.
    """
    vae, config, scale = pipe.vae, pipe.vocoder.config, pipe.vae_scale_factor
    if vae.config.out_channels != 1 or config.model_in_dim % scale:
        raise CapabilityError(
            f"{model}: its autoencoder makes {vae.config.out_channels} channels at 1/{scale} and its vocoder takes one "
            f"spectrogram of {config.model_in_dim} bands; they do not fit."
        )
    step = math.prod(config.upsample_rates) / config.sampling_rate
    native = pipe.unet.config.sample_size
    native = native if isinstance(native, int) else native[0]
    seconds = native * scale * step if seconds is None else seconds
    if seconds < step * scale:
        raise ConfigError(f"seconds: {seconds:g} is shorter than one latent of this model ({step * scale:g} s).")
    frames = math.ceil(int(seconds / step) / scale) * scale
    return LatentMels(
        vae=vae,
        vocoder=pipe.vocoder,
        frames=frames,
        samples=int(seconds * config.sampling_rate),
        mel=mel,
        rows=rows,
        recompute=recompute,
    )


def mel_sound_format(configs: Configs) -> SoundFormat:
    """Return the format of sounds: one channel at the vocoder's rate, as long as the U-Net was made for."""
    vocoder, native = configs("vocoder"), configs("unet")["sample_size"]
    step = math.prod(vocoder["upsample_rates"]) / vocoder["sampling_rate"]
    frames = (native if isinstance(native, int) else native[0]) * image_scale(configs)
    return SoundFormat(vocoder["sampling_rate"], 1, frames * step)


def mel_shape(pipe: Pipeline, sounds: LatentMels) -> tuple[int, int, int]:
    """Return the shape of one row's latents: channels, time, bands."""
    scale = pipe.vae_scale_factor
    return pipe.unet.config.in_channels, sounds.frames // scale, pipe.vocoder.config.model_in_dim // scale


@dataclass
class MelAdapter(DiffusionLevels, NegativeTextAdapter, SoundAdapter):
    """Predicts ε or v, as its scheduler says; one channel of sound; latents are (B, C, time, bands).

    Sampling levels are DDIM's for the scheduler's config, whichever scheduler that is; x_0 is never clipped. Sounds are
    not ranked afterwards, as the pipelines do where several are asked for.

    Args:
        seconds: length of the sounds; what the U-Net was made for by default. Only the latents it needs are computed.
        mel: how the checkpoint's spectrograms were made, for sounds that are given (DPO, SFT).
    """

    seconds: Positive | None = None
    mel: Mel = field(default_factory=Mel)

    component: ClassVar[str] = "unet"
    optional: ClassVar[tuple[str, ...]] = ("feature_extractor",)  # it ranks sounds, which nobody asks for here

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Return the format of sounds: one channel at the vocoder's rate, as long as the U-Net was made for."""
        return mel_sound_format(configs)

    def open_outputs(self, pipe: Pipeline) -> LatentMels:
        """Set `seconds` and `latent_shape`, (channels, time, bands), and give the autoencoder with its vocoder."""
        sounds = mel_sounds(pipe, self.model, self.seconds, self.mel, self.decode_rows, self.gradient_checkpointing)
        self.seconds = sounds.samples / sounds.rate if self.seconds is None else self.seconds
        self.latent_shape = mel_shape(pipe, sounds)
        return sounds

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """Predict ε or v (B, C, time, bands); conditions enter by their names (without states it attends to x)."""
        return self.module(x, times, **{"encoder_hidden_states": None, **condition}, return_dict=False)[0]


@dataclass
class ClapAdapter(MelAdapter):
    """A family whose only condition is CLAP's embedding of the prompt."""

    def encode_text(self, text: str) -> Condition:
        """Return `class_labels` (1, D): the text's CLAP embedding."""
        return {"class_labels": clap_text(self.loaded.pipeline, text, default_device(self.device), self.name)}


def clap_text(pipe: Pipeline, text: str, device: torch.device, reader: str) -> Float[Tensor, "1 D"]:
    """Embed a text, scaled to length 1, by a `ClapModel` or a `ClapTextModelWithProjection`."""
    room = pipe.tokenizer.model_max_length
    warn_if_cut(reader, text, len(pipe.tokenizer(text).input_ids), room, "shorten it")
    tokens = pipe.tokenizer([text], padding="max_length", max_length=room, truncation=True, return_tensors="pt")
    inputs = {"input_ids": tokens.input_ids.to(device), "attention_mask": tokens.attention_mask.to(device)}
    if hasattr(pipe.text_encoder, "get_text_features"):
        return pipe.text_encoder.get_text_features(**inputs).pooler_output
    return torch.nn.functional.normalize(pipe.text_encoder(**inputs).text_embeds, dim=-1)
