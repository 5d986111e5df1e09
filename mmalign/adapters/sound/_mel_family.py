"""What generators of log-mel latents (AudioLDM, MusicLDM, AudioLDM 2) load and answer alike; taken by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from jaxtyping import Float

from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.loaded import Family, opened, take
from mmalign.adapters.loading.options import default_device, input_dtype, mixed_precision, texts_only
from mmalign.adapters.loading.schedule import ddim_level, ddim_prediction, ddim_schedule
from mmalign.adapters.sound._latent_mels import Mel, mel_shape, mel_sounds
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel, Prompt


class MelFamily(Family, Protocol):
    """A family that makes sound of a length through spectrograms; `load_mels` fills in what is not given."""

    seconds: float | None
    mel: Mel
    prediction: Prediction


class ClapTold(MelFamily, Protocol):
    """One that is told CLAP's embedding of its prompt; `name` is the adapter's, for messages."""

    name: ClassVar[str]


C = TypeVar("C", bound=ClapTold)


def load(self: C) -> C:
    """Read the checkpoint and place it; raises CheckpointError, CapabilityError or ConfigError naming the fault."""
    load_mels(self)
    return self


def encode(self: ClapTold, prompts: Sequence[Prompt]) -> Condition:
    """`class_labels` (B, D): the text's CLAP embedding."""
    return self.loaded.conditions(texts_only(prompts, self.name))


def encode_text(self: ClapTold, text: str) -> Condition:
    """The condition of one prompt."""
    return {"class_labels": clap_text(self.loaded.pipeline, text, default_device(self.device), self.name)}


def load_mels(adapter: MelFamily) -> Any:
    """Read the checkpoint and place it: sets `device`, `seconds`, `latent_shape`, `prediction`, `module`, `loaded`.

    Returns the pipeline. Raises CheckpointError, CapabilityError or ConfigError naming what is at fault.
    """
    pipe = opened(adapter, "unet", optional=("feature_extractor",))  # it ranks sounds, which nobody asks for here
    adapter.prediction = ddim_prediction(pipe.scheduler)
    recompute = adapter.gradient_checkpointing
    sounds = mel_sounds(pipe, adapter.model, adapter.seconds, adapter.mel, adapter.decode_rows, recompute)
    adapter.seconds = sounds.samples / sounds.rate if adapter.seconds is None else adapter.seconds
    adapter.latent_shape = mel_shape(pipe, sounds)
    take(adapter, pipe, "unet", sounds)
    return pipe


@property  # type: ignore[misc]
def rate(self: MelFamily) -> int:
    """Samples a second, Hz."""
    return int(self.loaded.pipeline.vocoder.config.sampling_rate)


def schedule(self: MelFamily, num_inference_steps: int) -> NoiseLevel:
    """DDIM's levels for the scheduler's config."""
    return ddim_schedule(self.loaded.pipeline.scheduler, num_inference_steps, default_device(self.device))


def level(self: MelFamily, u: Tensor) -> NoiseLevel:
    """Training levels at u."""
    return ddim_level(self.loaded.pipeline.scheduler, u)


def predict(
    self: MelFamily, x: Float[Tensor, "B C t f"], times: Float[Tensor, " B"], condition: Condition
) -> Float[Tensor, "B C t f"]:
    """The predicted ε or v, float32; conditions enter by their names (where there are no states, it attends to x)."""
    given = {"encoder_hidden_states": None} | condition
    with mixed_precision(x.device, self.dtype):
        answer = self.module(x.to(input_dtype(self.train, self.dtype)), times, **given, return_dict=False)[0]
    return answer.float()  # type: ignore[no-any-return]


def clap_text(pipe: Any, text: str, device: torch.device, family: str) -> Float[Tensor, "1 D"]:
    """CLAP's embedding of a text, of length 1, from a `ClapModel` or a `ClapTextModelWithProjection`."""
    room = pipe.tokenizer.model_max_length
    warn_if_cut(family, text, len(pipe.tokenizer(text).input_ids), room, "shorten it")
    given = pipe.tokenizer([text], padding="max_length", max_length=room, truncation=True, return_tensors="pt")
    asked = {"input_ids": given.input_ids.to(device), "attention_mask": given.attention_mask.to(device)}
    if hasattr(pipe.text_encoder, "get_text_features"):
        return pipe.text_encoder.get_text_features(**asked).pooler_output  # type: ignore[no-any-return]
    return torch.nn.functional.normalize(pipe.text_encoder(**asked).text_embeds, dim=-1)
