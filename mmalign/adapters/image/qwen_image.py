"""Qwen-Image (Wu et al., 2508.02324): a rectified flow over packed latent tokens, told what to draw by a Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float

from mmalign.adapters.image._frame_images import FrameImages
from mmalign.adapters.image._packing import pack, packed_frame, unpack
from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import warn_if_cut
from mmalign.adapters.loading.described import Configs, Frame
from mmalign.adapters.loading.loaded import Loaded, load_into
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
from mmalign.adapters.loading.schedule import dynamic_shift, flow_level, flow_schedule
from mmalign.core.errors import ConfigError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt

LONGEST = 1024  # tokens of a prompt that the pipeline reads


def _frame(configs: Configs) -> Frame:
    return packed_frame(configs, 2 ** len(configs("vae")["temperal_downsample"]))


@dataclass
class QwenImage:
    """`LatentAdapter` around `QwenImagePipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Every prompt is padded to `max_sequence_length` tokens and masked, so that a prediction does not depend on which
    prompts share its batch; the pipeline pads to the longest prompt of the batch, which is the same up to rounding.
    A longer prompt is cut, as the pipeline does, with a warning. The tokens of the instruction around the prompt that
    the pipeline drops are dropped, and what it keeps of it counts (about five tokens).

    Latents are (B, C, h, w); tokens, their positions and the autoencoder's frame axis stay inside.

    Nothing reads the text that leaves the last block, so the layers that make it get no gradient and stay as they are.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    pipeline's default otherwise. `negative_prompt`: what `guide` leads away from; a space, as published, leads away
    from nothing in particular. `decode_rows`: images decoded at once. `cached_prompts`: prompts whose conditions are
    kept on the CPU.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    resolution: AtLeastOne | None = None
    height: AtLeastOne | None = None
    width: AtLeastOne | None = None
    negative_prompt: str = " "
    max_sequence_length: AtLeastOne = 512
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "QwenImagePipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    )

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)

    frame = staticmethod(_frame)
    reference = _loaded.reference
    trainable = _loaded.trainable
    save = _loaded.save
    restore = _loaded.restore
    unconditional = _loaded.unconditional
    decode = _loaded.decode
    latents = _loaded.latents
    _encode_negative = _loaded.encode_negative

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_sequence_length")
        if self.max_sequence_length > LONGEST:
            raise ConfigError(
                f"max_sequence_length: {self.max_sequence_length} is more than {LONGEST}, the most that "
                f"{self.pipeline_name} accepts."
            )

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        return load_into(self, "transformer", images=FrameImages)

    def unread(self, network: Any) -> list[str]:
        """Where the text leaves the last block."""
        last = len(network.transformer_blocks) - 1
        return [f"transformer_blocks.{last}.{part}." for part in ("attn.to_add_out", "txt_mlp")]

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L, D) and `encoder_hidden_states_mask` (B, L), False at padding."""
        return self.loaded.conditions(texts_only(prompts, "qwen_image"))

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The velocity, float32."""
        height, width = x.shape[2:]
        dtype = input_dtype(self.train, self.dtype)
        with mixed_precision(x.device, self.dtype):
            tokens = self.module(
                hidden_states=pack(x).to(dtype),
                timestep=times.to(dtype) / 1000,
                img_shapes=[[(1, height // 2, width // 2)]] * len(x),
                **condition,
                return_dict=False,
            )[0]
        return unpack(tokens.float(), height, width)

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """The pipeline's guidance: u + scale (c - u), each token then brought back to the length it has in c."""
        height, width = conditional.shape[2:]
        wanted = pack(conditional).norm(dim=-1, keepdim=True)
        combined = pack(unconditional + scale * (conditional - unconditional))
        length = combined.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # an all-zero token stays zero
        return unpack(combined * (wanted / length), height, width)

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas: even, shifted by the number of tokens, stretched to the scheduler's last one.

        Raises ConfigError for a single step where they are stretched: the pipeline itself then divides by zero.
        """
        scheduler, steps = self.loaded.pipeline.scheduler, num_inference_steps
        if steps == 1 and scheduler.config.shift_terminal:
            raise ConfigError("num_inference_steps: 1 is too few for a scheduler with shift_terminal; take 2 or more.")
        mu = dynamic_shift(scheduler, (self.latent_shape[1] // 2) * (self.latent_shape[2] // 2))
        even = [1 - i / steps for i in range(steps)]
        return flow_schedule(scheduler, steps, default_device(self.device), mu, even)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, unshifted where the shift depends on resolution (as published)."""
        return flow_level(self.loaded.pipeline.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        embeds, mask = self.loaded.pipeline.encode_prompt(
            prompt=[text], device=self.device, max_sequence_length=LONGEST
        )
        known, kept = embeds.shape[1], self.max_sequence_length
        warn_if_cut("qwen_image", text, self._count(text), kept)
        mask = torch.ones(embeds.shape[:2], device=embeds.device) if mask is None else mask
        missing = max(0, kept - known)
        return {
            "encoder_hidden_states": torch.nn.functional.pad(embeds[:, :kept], (0, 0, 0, missing)),
            "encoder_hidden_states_mask": torch.nn.functional.pad(mask[:, :kept].bool(), (0, missing)),
        }

    def _count(self, text: str) -> int:
        """Tokens of a prompt before any is cut."""
        pipe = self.loaded.pipeline
        written = pipe.tokenizer(pipe.prompt_template_encode.format(text)).input_ids
        return len(written) - int(pipe.prompt_template_encode_start_idx)


__all__ = ["QwenImage"]
