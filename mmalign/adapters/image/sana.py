"""Sana (Xie et al., 2410.10629): a rectified flow with linear attention over deeply compressed latents."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from mmalign.adapters.bases.conditions import warn_if_cut
from mmalign.adapters.bases.formats import Configs, Frame
from mmalign.adapters.bases.image_adapter import ImageAdapter, LatentImages
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Tensor
from mmalign.loading.foreign import Pipeline, Scheduler


class DeepImages(LatentImages):
    """An `AutoencoderDC` between latents and images, differentiable and in float32."""

    def _picture(self, x: Tensor) -> Tensor:
        return self.vae.decode(x / self.vae.config.scaling_factor).sample / 2 + 0.5

    def _latent(self, images: Tensor) -> Tensor:
        return self.vae.encode(images * 2 - 1).latent * self.vae.config.scaling_factor


@dataclass
class Sana(FlowLevels, ImageAdapter):
    """`LatentAdapter` around `SanaPipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Published checkpoints come with a DPM-Solver scheduler, whose steps also use earlier predictions. A policy's step
    uses the present one only, so the noise levels are DPM-Solver's (`schedule` states its sigmas) and the steps between
    them are Euler's: what the same pipeline does with `FlowMatchEulerDiscreteScheduler(shift=flow_shift)` and those
    sigmas, and what is compared with it. Images hence differ a little from the default pipeline's at equal steps.
    Times are 1000 σ, where DPM-Solver rounds them down to whole numbers. A checkpoint whose scheduler is
    `FlowMatchEulerDiscreteScheduler` is sampled as its pipeline samples it.

    Sizes are taken as they are (the pipeline's `use_resolution_binning=False`).

    Args:
        max_sequence_length: tokens of a prompt; what is over is cut, as in the pipeline, with a warning.
        complex_human_instruction: lines put before every prompt (the paper's "complex human instruction"), None for
            the pipeline's own, [] for none; the negative prompt never has them.
    """

    max_sequence_length: AtLeastOne = 300
    complex_human_instruction: list[str] | None = None

    pipeline_name: ClassVar[str] = "SanaPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = (
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    )
    images: ClassVar[type[LatentImages]] = DeepImages

    def inspect(self, pipe: Pipeline) -> None:
        """Refuse a DPM-Solver over other levels than a flow's."""
        euler(pipe.scheduler)

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Return the format of images: sides are whole patches and multiples of 32 pixels, the pipeline's own rule."""
        network, scale = configs("transformer"), 2 ** (len(configs("vae")["encoder_block_out_channels"]) - 1)
        multiple = math.lcm(32, network["patch_size"] * scale)
        return Frame(network["in_channels"], (network["sample_size"] * scale,) * 2, multiple)

    @property
    def scheduler(self) -> Scheduler:
        """Return the checkpoint's scheduler if it is flow-matching Euler, else that with its DPM-Solver's shift."""
        return euler(self.loaded.pipeline.scheduler)

    def sigmas(self, num_inference_steps: int) -> list[float] | None:
        """Return the K levels of a DPM-Solver over T training steps: even from 1 - 1/T down; None for Euler's own."""
        own = self.loaded.pipeline.scheduler
        if self.scheduler is own:
            return None
        top = 1 - 1 / own.config.num_train_timesteps
        return [top * (1 - i / num_inference_steps) for i in range(num_inference_steps)]

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """Predict the velocity (B, C, h, w): the first half of the channels where a variance is predicted, too."""
        times = times * self.loaded.pipeline.transformer.config.timestep_scale
        return self.module(x, timestep=times, **condition, return_dict=False)[0][:, : x.shape[1]]

    def encode_text(self, text: str) -> Condition:
        """Return `encoder_hidden_states` (1, L, D) and `encoder_attention_mask` (1, L), 1 at tokens, 0 at padding."""
        return self._encode(text, self._instruction())

    def encode_negative(self) -> Condition:
        """Encode the negative prompt, without the instruction."""
        return self._encode(self.negative_prompt, [])

    def _encode(self, text: str, instruction: list[str]) -> Condition:
        before = "\n".join(instruction)
        encode, room = self.loaded.pipeline.tokenizer.encode, self.max_sequence_length
        room += len(encode(before)) - 2 if instruction else 0  # the pipeline's own sum
        warn_if_cut(self.name, text, len(encode(before + text.lower().strip())), room)
        embeds, mask, _, _ = self.loaded.pipeline.encode_prompt(
            prompt=[text],
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=instruction,
        )
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}

    def _instruction(self) -> list[str]:
        if self.complex_human_instruction is not None:
            return self.complex_human_instruction
        return list(inspect.signature(self.loaded.pipeline.__call__).parameters["complex_human_instruction"].default)


def euler(scheduler: Scheduler) -> Any:
    """Return `scheduler` itself, or for a DPM-Solver over flow sigmas the Euler scheduler with its shift."""
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


__all__ = ["Sana"]
