"""ACE-Step 1.5 (2602.00744): songs by rectified flow over the latents of a one-dimensional autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.described import Configs, Heard
from mmalign.adapters.loading.loaded import Loaded, opened, take
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import (
    Dtype,
    Train,
    check_counts,
    default_device,
    input_dtype,
    mixed_precision,
    not_loaded,
    texts_only,
)
from mmalign.adapters.loading.schedule import flow_level, flow_schedule
from mmalign.adapters.sound._latent_sounds import LatentSounds
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Audio, Modality, NoiseLevel, Prompt

TEXT_TOKENS, REFERENCE_SECONDS = 256, 30  # the pipeline's own
NORM, ENDS = 2.5, "\0"  # of guidance; between a caption and its lyrics


def _heard(configs: Configs) -> Heard:
    vae = configs("vae")
    return Heard(vae.get("sampling_rate", 48_000), vae["audio_channels"])  # the pipeline's own default


@dataclass
class AceStep:
    """`LatentAdapter` around `AceStepPipeline`, text to music; predicts the velocity at times in (0, 1).

    A prompt is a caption, with the words to sing in `meta["lyrics"]` if there are any. Latents are (time, channels).
    Sounds come as the autoencoder decodes them: the pipeline's scaling of every peak to -1 dBFS is left out, so that
    rewards hear how loud a sound is.

    Prompts differ in length and this network attends to whatever it is given, so padding would change it: rows of
    one length are forwarded together, and rows of another apart.

    Guidance is adaptive projected guidance (Sadat et al., 2410.02416) as in the pipeline but for its momentum, which
    looks back at earlier steps and so is no policy. Turbo checkpoints have guidance distilled in and take none.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora" (saved as the pipeline loads it) or "full".
        lora: of the attention projections unless it names others.
        dtype: of frozen parts and of the network's arithmetic (autocast); trained weights and the autoencoder stay
            float32.
        seconds: length of the sounds; the prompt says it, in whole seconds, and only the latents it needs are computed.
        language: of lyrics.
        shift: of the sampling levels towards noise, the pipeline's own.
        max_lyric_length: tokens of lyrics that are read; what is over is cut with a warning.
        gradient_checkpointing: recompute the network's blocks and the decoder in backward.
        offload_text_encoder: keep it on the CPU while it does not work.
        decode_rows: sounds decoded at once.
        cached_prompts: prompts whose conditions are kept on the CPU.
        revision, variant: of the Hub's files.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    seconds: Positive = 30.0
    language: str = "en"
    shift: Positive = 3.0
    max_lyric_length: AtLeastOne = 512
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 4
    cached_prompts: AtLeastOne = 128
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "audio"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "AceStepPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)

    heard = staticmethod(_heard)
    reference = _loaded.reference
    trainable = _loaded.trainable
    save = _loaded.save
    restore = _loaded.restore
    unconditional = _loaded.unconditional

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_lyric_length")
        if self.seconds <= 0 or self.shift <= 0:
            raise ConfigError(f"seconds: {self.seconds:g} and shift: {self.shift:g} must both be positive.")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.loaded.pipeline.sample_rate)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError, CapabilityError or ConfigError naming the fault."""
        pipe = opened(self, "transformer", absent=("audio_tokenizer", "audio_token_detokenizer"))
        samples, frames = int(self.seconds * pipe.sample_rate), math.ceil(self.seconds * pipe.latents_per_second)
        if samples < 1:
            raise ConfigError(f"seconds: {self.seconds:g} is less than a sample of this model ({pipe.sample_rate} Hz).")
        self.latent_shape = (frames, pipe.transformer.config.audio_acoustic_hidden_dim)
        take(
            self,
            pipe,
            "transformer",
            LatentSounds(pipe.vae, frames, samples, self.decode_rows, self.gradient_checkpointing),
        )
        device, network = default_device(self.device), input_dtype(self.train, self.dtype)
        silence, _ = pipe.prepare_src_latents(device, network, latent_length=frames)
        self._context = torch.cat([silence.to(device), torch.ones_like(silence, device=device)], 2)
        return self

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L, D) of lyrics, timbre and caption, and the `length` (B,) of each row."""
        texts = texts_only(prompts, "ace_step")
        lyrics = [str(prompt.meta.get("lyrics") or "") for prompt in prompts]
        return self.loaded.conditions([f"{text}{ENDS}{said}" for text, said in zip(texts, lyrics, strict=True)])

    def predict(
        self, x: Float[Tensor, "B frames C"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B frames C"]:
        """The predicted velocity, float32."""
        lengths = condition["length"]
        out = torch.empty_like(x, dtype=torch.float32)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            told = condition["encoder_hidden_states"][rows, :length]
            with mixed_precision(x.device, self.dtype):
                answer = self.module(
                    x[rows].to(self._context.dtype),
                    times[rows],
                    times[rows],
                    told,
                    self._context.expand(len(rows), -1, -1),
                    return_dict=False,
                )[0]
            out = out.index_copy(0, rows, answer.float())
        return out

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """c plus (scale - 1) times what of c - u is across c, over time; c - u at most 2.5 long."""
        if self.loaded.pipeline.is_turbo:
            raise CapabilityError(f"{self.model}: has guidance distilled in; set the policy's guidance_scale to 1.")
        apart = conditional - unconditional
        length = apart.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt()
        apart = apart * (NORM / length).clamp(max=1)
        along = torch.nn.functional.normalize(conditional, dim=1)
        return conditional + (scale - 1) * (apart - (apart * along).sum(1, keepdim=True) * along)

    def decode(self, x: Float[Tensor, "B frames C"]) -> Audio:
        """Sound (B, channels, S), not clamped, with gradient to x."""
        return self.loaded.autoencoder.decode(x.transpose(1, 2))  # type: ignore[no-any-return]

    def latents(self, output: Audio) -> Float[Tensor, "B frames C"]:
        """The mode of the autoencoder's latents for sounds."""
        return self.loaded.autoencoder.latents(output).transpose(1, 2)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own levels."""
        pipe, device = self.loaded.pipeline, default_device(self.device)
        at = torch.linspace(1, 0, max(num_inference_steps, 0) + 1)[:-1]
        sigmas = (self.shift * at / (1 + (self.shift - 1) * at)).tolist()
        return flow_schedule(pipe.scheduler, num_inference_steps, device, sigmas=sigmas)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u: σ = u."""
        return flow_level(self.loaded.pipeline.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        pipe, device = self.loaded.pipeline, default_device(self.device)
        caption, _, lyrics = text.partition(ENDS)
        rooms = {"max_text_length": TEXT_TOKENS, "max_lyric_length": self.max_lyric_length}
        written = pipe._format_prompt(caption, lyrics, self.language, self.seconds)
        for what, said, room in zip(("", "'s lyrics"), written, rooms.values(), strict=True):
            warn_if_cut(f"ace_step{what}", said, len(pipe.tokenizer(said).input_ids), room, "shorten it")
        states = pipe.encode_prompt(caption, lyrics, device, self.language, self.seconds, **rooms)
        heard = pipe.condition_encoder.silence_latent[:, : math.ceil(REFERENCE_SECONDS * pipe.latents_per_second)]
        packed, mask = pipe.condition_encoder(*states, heard.to(states[0].dtype), torch.zeros(1, device=device).long())
        return self._padded(packed[:, : int(mask.sum())])

    def _encode_negative(self) -> Condition:
        """The learned empty condition; as it is the same everywhere, one place of it says what any number say."""
        return self._padded(self.loaded.pipeline.condition_encoder.null_condition_emb)

    def _padded(self, states: Float[Tensor, "1 L D"]) -> Condition:
        length = states.shape[1]
        room = TEXT_TOKENS + self.max_lyric_length + 1 - length
        counted = torch.tensor([length], device=states.device)
        return {"encoder_hidden_states": torch.nn.functional.pad(states, (0, 0, 0, room)), "length": counted}


__all__ = ["AceStep"]
