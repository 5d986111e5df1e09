"""Sana (Xie et al., 2410.10629): a rectified flow with linear attention over deeply compressed latents."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from jaxtyping import Float

from mmalign.adapters.image._deep_images import DeepImages
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
from mmalign.adapters.loading.schedule import flow_level, flow_schedule
from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition, Prediction
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.core.types import Modality, NoiseLevel, Prompt


def _frame(configs: Configs) -> Frame:
    network, scale = configs("transformer"), 2 ** (len(configs("vae")["encoder_block_out_channels"]) - 1)
    multiple = math.lcm(32, network["patch_size"] * scale)  # 32: the pipeline's own rule
    return Frame(network["in_channels"], (network["sample_size"] * scale,) * 2, multiple)


@dataclass
class Sana:
    """`LatentAdapter` around `SanaPipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Published checkpoints come with a DPM-Solver scheduler, whose steps also use earlier predictions. A policy's step
    uses the present one only, so the noise levels are DPM-Solver's (`schedule` states its sigmas) and the steps between
    them are Euler's: what the same pipeline does with `FlowMatchEulerDiscreteScheduler(shift=flow_shift)` and those
    sigmas, and what is compared with it. Images hence differ a little from the default pipeline's at equal steps.
    Times are 1000 σ, where DPM-Solver rounds them down to whole numbers. A checkpoint whose scheduler is
    `FlowMatchEulerDiscreteScheduler` is sampled as its pipeline samples it.

    `complex_human_instruction`: lines put before every prompt (the paper's "complex human instruction"), None for the
    pipeline's own, [] for none; the negative prompt never has them. A prompt is cut after `max_sequence_length` tokens,
    as in the pipeline, with a warning. Sizes are taken as they are (the pipeline's `use_resolution_binning=False`).

    `model`: a Hub id, a folder, or "assets/…". `dtype`: of frozen parts and of the network's arithmetic (autocast);
    trained weights stay float32, the autoencoder works in float32. `resolution` (or `height`, `width`) in pixels, the
    trained size by default. `decode_rows`: images decoded at once. `cached_prompts`: prompts whose conditions are kept
    on the CPU.
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
    max_sequence_length: AtLeastOne = 300
    complex_human_instruction: list[str] | None = None
    gradient_checkpointing: bool = False
    offload_text_encoder: bool = False
    decode_rows: AtLeastOne = 8
    cached_prompts: AtLeastOne = 512
    revision: str | None = None
    variant: str | None = None

    modality: ClassVar[Modality] = "image"
    prediction: ClassVar[Prediction] = "flow"
    pipeline_name: ClassVar[str] = "SanaPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    )

    module: Module = field(init=False, repr=False, compare=False)
    scheduler: Any = field(init=False, repr=False, compare=False)
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
        load_into(self, "transformer", images=DeepImages)
        self.scheduler = _euler(self.loaded.pipeline.scheduler)
        return self

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """`encoder_hidden_states` (B, L, D) and `encoder_attention_mask` (B, L), 1 at tokens, 0 at padding."""
        return self.loaded.conditions(texts_only(prompts, "sana"))

    def predict(
        self, x: Float[Tensor, "B C h w"], times: Float[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The velocity, float32 (the first half of the channels where the checkpoint also predicts a variance)."""
        config = self.loaded.pipeline.transformer.config
        with mixed_precision(x.device, self.dtype):
            output = self.module(
                x.to(input_dtype(self.train, self.dtype)),
                timestep=times * config.timestep_scale,
                **condition,
                return_dict=False,
            )[0]
        return output[:, : x.shape[1]].float()  # type: ignore[no-any-return]

    def schedule(self, num_inference_steps: int) -> NoiseLevel:
        """The sigmas of the checkpoint's own scheduler, flow-matching Euler or DPM-Solver."""
        own = self.loaded.pipeline.scheduler
        sigmas = None if self.scheduler is own else _solver_sigmas(own, num_inference_steps)
        return flow_schedule(self.scheduler, num_inference_steps, default_device(self.device), sigmas=sigmas)

    def level(self, u: Tensor) -> NoiseLevel:
        """Training levels at u, shifted as the scheduler's config says."""
        return flow_level(self.scheduler, u)

    def _encode_text(self, text: str) -> Condition:
        embeds, mask, _, _ = self._encode_prompt(text, self._instruction())
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}

    def _encode_negative(self) -> Condition:
        embeds, mask, _, _ = self._encode_prompt(self.negative_prompt, [])
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}

    def _encode_prompt(self, text: str, instruction: list[str]) -> Any:
        before = "\n".join(instruction)
        encode, room = self.loaded.pipeline.tokenizer.encode, self.max_sequence_length
        room += len(encode(before)) - 2 if instruction else 0  # the pipeline's own sum
        warn_if_cut("sana", text, len(encode(before + text.lower().strip())), room)
        return self.loaded.pipeline.encode_prompt(
            prompt=[text],
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=instruction,
        )

    def _instruction(self) -> list[str]:
        if self.complex_human_instruction is not None:
            return self.complex_human_instruction
        return list(inspect.signature(self.loaded.pipeline.__call__).parameters["complex_human_instruction"].default)


def _euler(scheduler: Any) -> Any:
    """`scheduler` itself, or for a DPM-Solver over flow sigmas the Euler scheduler with its shift."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    if not isinstance(scheduler, DPMSolverMultistepScheduler):
        return scheduler  # what else is not flow-matching Euler is refused where levels are read
    config = scheduler.config
    if not config.use_flow_sigmas or config.prediction_type != "flow_prediction":
        raise CapabilityError(
            f"the checkpoint's DPM-Solver scheduler has prediction_type '{config.prediction_type}' and use_flow_sigmas "
            f"{config.use_flow_sigmas}; this adapter needs 'flow_prediction' and True."
        )
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.num_train_timesteps, shift=config.flow_shift)


def _solver_sigmas(scheduler: Any, num_inference_steps: int) -> list[float]:
    """The K unshifted sigmas of a DPM-Solver scheduler over T training steps: even from 1 - 1/T down."""
    top = 1 - 1 / scheduler.config.num_train_timesteps
    return [top * (1 - i / num_inference_steps) for i in range(num_inference_steps)]


__all__ = ["Sana"]
