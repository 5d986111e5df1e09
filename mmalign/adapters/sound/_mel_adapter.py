"""Families that diffuse log-mel spectrograms with a U-Net: AudioLDM, MusicLDM, AudioLDM 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float

from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.described import Configs, Heard
from mmalign.adapters.loading.diffusers_adapter import NegativeTextAdapter
from mmalign.adapters.loading.levels import DiffusionLevels
from mmalign.adapters.loading.options import default_device
from mmalign.adapters.loading.sound_adapter import SoundAdapter
from mmalign.adapters.sound._latent_mels import LatentMels, Mel, mel_heard, mel_shape, mel_sounds
from mmalign.core.options import Positive
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor


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
    def heard(configs: Configs) -> Heard:
        """One channel at the vocoder's rate, as long as the U-Net was made for."""
        return mel_heard(configs)

    def open_outputs(self, pipe: Any) -> LatentMels:
        """Set `seconds` and `latent_shape`."""
        sounds = mel_sounds(pipe, self.model, self.seconds, self.mel, self.decode_rows, self.gradient_checkpointing)
        self.seconds = sounds.samples / sounds.rate if self.seconds is None else self.seconds
        self.latent_shape = mel_shape(pipe, sounds)
        return sounds

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """ε or v (B, C, time, bands); conditions enter by their names (without states it attends to x)."""
        return self.module(x, times, **{"encoder_hidden_states": None, **condition}, return_dict=False)[0]


@dataclass
class ClapAdapter(MelAdapter):
    """A family whose only condition is CLAP's embedding of the prompt."""

    def encode_text(self, text: str) -> Condition:
        """`class_labels` (1, D): the text's CLAP embedding."""
        return {"class_labels": clap_text(self.loaded.pipeline, text, default_device(self.device), self.name)}


def clap_text(pipe: Any, text: str, device: torch.device, reader: str) -> Float[Tensor, "1 D"]:
    """CLAP's embedding of a text, of length 1, from a `ClapModel` or a `ClapTextModelWithProjection`."""
    room = pipe.tokenizer.model_max_length
    warn_if_cut(reader, text, len(pipe.tokenizer(text).input_ids), room, "shorten it")
    tokens = pipe.tokenizer([text], padding="max_length", max_length=room, truncation=True, return_tensors="pt")
    inputs = {"input_ids": tokens.input_ids.to(device), "attention_mask": tokens.attention_mask.to(device)}
    if hasattr(pipe.text_encoder, "get_text_features"):
        return pipe.text_encoder.get_text_features(**inputs).pooler_output
    return torch.nn.functional.normalize(pipe.text_encoder(**inputs).text_embeds, dim=-1)
