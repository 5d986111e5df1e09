"""Stable Diffusion 3 and 3.5 (Esser et al., 2403.03206): a rectified flow with a multimodal transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from jaxtyping import Float

from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import token_count, warn_if_clip_cuts, warn_if_cut
from mmalign.adapters.loading.described import Configs, Frame, image_scale
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
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt


def _frame(configs: Configs) -> Frame:
    network, scale = configs("transformer"), image_scale(configs)
    side = network["patch_size"] * scale
    native = (network["sample_size"] * scale,) * 2
    return Frame(network["in_channels"], native, side, network["pos_embed_max_size"] * side)


@dataclass
class SD3:
    """`LatentAdapter` around `StableDiffusion3Pipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    trained size by default. `text_encoder_3=False` leaves the T5 encoder out, as diffusers allows. `decode_rows`:
    images decoded at once. `cached_prompts`: prompts whose conditions are kept on the CPU.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    resolution: AtLeastOne | None = None
    height: AtLeastOne | None = None
    width: AtLeastOne | None = None
    negative_prompt: str = ""
    max_sequence_length: AtLeastOne = 256
    text_encoder_3: bool = True
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "StableDiffusion3Pipeline"
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
    guide = _loaded.guide
    decode = _loaded.decode
    latents = _loaded.latents

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts", "max_sequence_length")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        absent, t5 = ("image_encoder", "feature_extractor"), ("text_encoder_3", "tokenizer_3")
        without = absent if self.text_encoder_3 else (*absent, *t5)
        return load_into(self, "transformer", absent=without, optional=t5)

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L, D) and `pooled_projections` (B, P)."""
        return self.loaded.conditions(texts_only(prompts, "sd3"))

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The velocity, float32."""
        with mixed_precision(x.device, self.dtype):
            return self.module(  # type: ignore[no-any-return]
                hidden_states=x.to(input_dtype(self.train, self.dtype)), timestep=times, **condition, return_dict=False
            )[0].float()

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The pipeline's own sigmas, shifted as its scheduler says."""
        patch = self.loaded.pipeline.transformer.config.patch_size
        tokens = (self.latent_shape[1] // patch) * (self.latent_shape[2] // patch)
        scheduler = self.loaded.pipeline.scheduler
        return flow_schedule(
            scheduler, num_inference_steps, default_device(self.device), dynamic_shift(scheduler, tokens)
        )

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, shifted as the scheduler's config says."""
        return flow_level(self.loaded.pipeline.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        pipe = self.loaded.pipeline
        warn_if_clip_cuts("sd3", text, pipe.tokenizer, pipe.tokenizer_2)
        if pipe.tokenizer_3 is not None:
            warn_if_cut("sd3", text, token_count(pipe.tokenizer_3, text), self.max_sequence_length)
        embeds, _, pooled, _ = self._encode_prompt(text, guided=False)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_negative(self) -> Condition:
        _, embeds, _, pooled = self._encode_prompt("", guided=True)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def _encode_prompt(self, text: str, guided: bool) -> Any:
        return self.loaded.pipeline.encode_prompt(
            prompt=[text],
            prompt_2=None,
            prompt_3=None,
            negative_prompt=[self.negative_prompt],
            do_classifier_free_guidance=guided,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )


__all__ = ["SD3"]
