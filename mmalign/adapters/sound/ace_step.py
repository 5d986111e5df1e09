"""ACE-Step 1.5 (2602.00744): songs by rectified flow over the latents of a one-dimensional autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.formats import Configs, SoundFormat
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.adapters.bases.pretrained_adapter import default_device, input_dtype, texts_only
from mmalign.adapters.bases.sound_adapter import LatentSounds, SoundAdapter
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt
from mmalign.loading.foreign import Pipeline

TEXT_TOKENS, REFERENCE_SECONDS = 256, 30  # the pipeline's own
NORM, ENDS = 2.5, "\0"  # of guidance; between a caption and its lyrics


@dataclass
class AceStep(FlowLevels, SoundAdapter):
    """`LatentAdapter` around `AceStepPipeline`, text to music; predicts the velocity at times in (0, 1).

    A prompt is a caption, with the words to sing in `meta["lyrics"]` if there are any. Latents are (time, channels).
    Sounds come as the autoencoder decodes them: the pipeline's scaling of every peak to -1 dBFS is left out, so that
    rewards hear how loud a sound is.

    Prompts differ in length and this network attends to whatever it is given, so padding would change it: rows of
    one length are forwarded together, and rows of another apart.

    Guidance is adaptive projected guidance (Sadat et al., 2410.02416) as in the pipeline but for its momentum, which
    looks back at earlier steps and so is no policy. Turbo checkpoints have guidance distilled in and take none.

    Args:
        seconds: length of the sounds; the prompt says it, in whole seconds, and only the latents it needs are computed.
        language: of lyrics.
        shift: of the sampling levels towards noise, the pipeline's own.
        max_lyric_length: tokens of lyrics that are read; what is over is cut with a warning.
    """

    cached_prompts: AtLeastOne = 128
    seconds: Positive = 30.0
    language: str = "en"
    shift: Positive = 3.0
    max_lyric_length: AtLeastOne = 512

    pipeline_name: ClassVar[str] = "AceStepPipeline"

    @staticmethod
    def sound_format(configs: Configs) -> SoundFormat:
        """Return the autoencoder's format of sounds; a rate that it does not name is the pipeline's own default."""
        vae = configs("vae")
        return SoundFormat(vae.get("sampling_rate", 48_000), vae["audio_channels"])

    def absent(self) -> tuple[str, ...]:
        """Name the components that code sounds as tokens, which text to music does not need."""
        return ("audio_tokenizer", "audio_token_detokenizer")

    def open_outputs(self, pipe: Pipeline) -> LatentSounds:
        """Set `latent_shape`, (frames, channels), and give the autoencoder."""
        samples, frames = int(self.seconds * pipe.sample_rate), math.ceil(self.seconds * pipe.latents_per_second)
        if samples < 1:
            raise ConfigError(f"seconds: {self.seconds:g} is less than a sample of this model ({pipe.sample_rate} Hz).")
        self.latent_shape = (frames, pipe.transformer.config.audio_acoustic_hidden_dim)
        return LatentSounds(
            vae=pipe.vae, frames=frames, samples=samples, rows=self.decode_rows, recompute=self.gradient_checkpointing
        )

    def load_parts(self, device: torch.device) -> None:
        """Load, and keep what the network reads beside the latents: silence, and that all of it is to be made."""
        super().load_parts(device)
        pipe, network = self.loaded.pipeline, input_dtype(self.train, self.dtype)
        silence, _ = pipe.prepare_src_latents(device, network, latent_length=self.latent_shape[0])
        self._context = torch.cat([silence.to(device), torch.ones_like(silence, device=device)], 2)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Return `encoder_hidden_states` (B, L, D) of lyrics, timbre and caption, and the `length` (B,) of each row."""
        texts = texts_only(prompts, self.name)
        lyrics = [str(prompt.meta.get("lyrics") or "") for prompt in prompts]
        return self.loaded.conditions([f"{text}{ENDS}{sung}" for text, sung in zip(texts, lyrics, strict=True)])

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Predict the velocity (B, frames, C) in float32; rows of one length at a time."""
        lengths = condition["length"]
        out = torch.empty_like(x, dtype=torch.float32)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            states = condition["encoder_hidden_states"][rows, :length]
            context = self._context.expand(len(rows), -1, -1)
            velocity = self.module(x[rows], times[rows], times[rows], states, context, return_dict=False)[0]
            out = out.index_copy(0, rows, velocity.float())
        return out

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Return c plus (scale - 1) times the part of c - u orthogonal to c over time; c - u is at most 2.5 long."""
        if self.loaded.pipeline.is_turbo:
            raise CapabilityError(f"{self.model}: has guidance distilled in; set the policy's guidance_scale to 1.")
        apart = conditional - unconditional
        length = apart.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt()
        apart = apart * (NORM / length).clamp(max=1)
        along = torch.nn.functional.normalize(conditional, dim=1)
        return conditional + (scale - 1) * (apart - (apart * along).sum(1, keepdim=True) * along)

    def decode(self, x: Float[Tensor, "B frames C"]) -> Audio:
        """Decode latents to sound (B, channels, S), not clamped, with gradient to x."""
        return self.loaded.autoencoder.decode(x.transpose(1, 2))

    def latents(self, output: Tensor | Audio) -> Float[Tensor, "B frames C"]:
        """Return the mode of the autoencoder's latents (B, frames, C) for sounds."""
        return super().latents(output).transpose(1, 2)

    def sigmas(self, num_inference_steps: int) -> list[float]:
        """Return K levels, even and then shifted towards noise."""
        at = torch.linspace(1, 0, max(num_inference_steps, 0) + 1)[:-1]
        return (self.shift * at / (1 + (self.shift - 1) * at)).tolist()

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L, D) of lyrics, timbre and caption, padded, and their `length` (1,)."""
        pipe, device = self.loaded.pipeline, default_device(self.device)
        caption, _, lyrics = text.partition(ENDS)
        rooms = {"max_text_length": TEXT_TOKENS, "max_lyric_length": self.max_lyric_length}
        written = pipe._format_prompt(caption, lyrics, self.language, self.seconds)
        for what, part, room in zip(("", "'s lyrics"), written, rooms.values(), strict=True):
            warn_if_cut(f"{self.name}{what}", part, len(pipe.tokenizer(part).input_ids), room, "shorten it")
        states = pipe.encode_prompt(caption, lyrics, device, self.language, self.seconds, **rooms)
        silence = pipe.condition_encoder.silence_latent[:, : math.ceil(REFERENCE_SECONDS * pipe.latents_per_second)]
        packed, mask = pipe.condition_encoder(
            *states, silence.to(states[0].dtype), torch.zeros(1, device=device).long()
        )
        return self._padded(packed[:, : int(mask.sum())])

    def encode_negative(self) -> Condition:
        """Return the learned empty condition; it is constant over positions, so one of them is enough."""
        return self._padded(self.loaded.pipeline.condition_encoder.null_condition_emb)

    def _padded(self, states: Float[Tensor, "1 L D"]) -> Condition:
        length = states.shape[1]
        room = TEXT_TOKENS + self.max_lyric_length + 1 - length
        counted = torch.tensor([length], device=states.device)
        return {"encoder_hidden_states": torch.nn.functional.pad(states, (0, 0, 0, room)), "length": counted}


__all__ = ["AceStep"]
