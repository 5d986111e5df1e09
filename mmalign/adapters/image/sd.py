"""Stable Diffusion 1.x and 2.x (Rombach et al., 2112.10752): latent diffusion with a U-Net and one text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from jaxtyping import Float

from mmalign.adapters.image._unet import check_plain, unet_frame
from mmalign.adapters.loading import loaded as _loaded
from mmalign.adapters.loading.cut import warn_if_clip_cuts
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
from mmalign.adapters.loading.schedule import ddim_level, ddim_prediction, ddim_schedule
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt


@dataclass
class SD:
    """`LatentAdapter` around `StableDiffusionPipeline`; predicts ε or v, as its scheduler says.

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    trained size by default. `decode_rows`: images decoded at once. `cached_prompts`: prompts whose conditions are kept
    on the CPU. The safety checker is not loaded. Sampling levels are DDIM's for the scheduler's config, whichever
    scheduler that is; x_0 is never clipped.
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
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    pipeline_name: ClassVar[str] = "StableDiffusionPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    module: Module = field(init=False, repr=False, compare=False)
    latent_shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    loaded: Loaded = field(init=False, repr=False, compare=False)
    prediction: Prediction = field(default="epsilon", init=False, repr=False, compare=False)  # load() reads which

    frame = staticmethod(unet_frame)
    reference = _loaded.reference
    trainable = _loaded.trainable
    save = _loaded.save
    restore = _loaded.restore
    unconditional = _loaded.unconditional
    guide = _loaded.guide
    decode = _loaded.decode
    latents = _loaded.latents

    def __post_init__(self) -> None:
        check_counts(self, "decode_rows", "cached_prompts")

    def __getattr__(self, name: str) -> Any:
        not_loaded(self, name)

    def load(self) -> Self:
        """Read the checkpoint and place it; raises CheckpointError or ConfigError naming what is at fault."""
        absent = ("safety_checker", "feature_extractor", "image_encoder")
        load_into(self, "unet", refuse=lambda pipe: check_plain(pipe, self.model), absent=absent)
        self.prediction = ddim_prediction(self.loaded.pipeline.scheduler)
        return self

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, 77, D)."""
        return self.loaded.conditions(texts_only(prompts, "sd"))

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The predicted ε or v, float32."""
        with mixed_precision(x.device, self.dtype):
            answer = self.module(x.to(input_dtype(self.train, self.dtype)), times, **condition, return_dict=False)[0]
        return answer.float()  # type: ignore[no-any-return]

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """DDIM's levels for the scheduler's config."""
        return ddim_schedule(self.loaded.pipeline.scheduler, num_inference_steps, default_device(self.device))

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u."""
        return ddim_level(self.loaded.pipeline.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        warn_if_clip_cuts("sd", text, self.loaded.pipeline.tokenizer)
        embeds, _ = self.loaded.pipeline.encode_prompt([text], self.device, 1, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds}

    def _encode_negative(self) -> Condition:
        _, embeds = self.loaded.pipeline.encode_prompt(
            [""], self.device, 1, True, negative_prompt=[self.negative_prompt]
        )
        return {"encoder_hidden_states": embeds}


__all__ = ["SD"]
