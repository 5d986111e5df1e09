"""A family of images that mmalign does not have is a file of its own parts: AuraFlow, in the class below."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mmalign.adapters.bases.formats import Configs, Frame, image_scale
from mmalign.adapters.bases.image_adapter import ImageAdapter
from mmalign.adapters.bases.levels import FlowLevels
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Condition
from tests.adapters import tiny_contract
from tests.adapters.deterministic import sample
from tests.adapters.language.tiny_tokens import t5_tokenizer


@dataclass
class AuraFlow(FlowLevels, ImageAdapter):
    """`LatentAdapter` around `AuraFlowPipeline`; predicts the velocity ε - x_0 at times 1000 σ.

    Args:
        max_sequence_length: tokens of a prompt, padded to.
    """

    max_sequence_length: AtLeastOne = 256

    pipeline_name: ClassVar[str] = "AuraFlowPipeline"
    lora_targets: ClassVar[tuple[str, ...]] = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")

    @staticmethod
    def frame(configs: Configs) -> Frame:
        """Its positions are of `pos_embed_max_size` patches in all."""
        network, scale = configs("transformer"), image_scale(configs)
        side, most = network["patch_size"] * scale, int(network["pos_embed_max_size"] ** 0.5)
        return Frame(network["in_channels"], (network["sample_size"] * scale,) * 2, side, most * side)

    def call_network(self, x: Tensor, times: Tensor, condition: Condition) -> Any:
        """The velocity (B, C, h, w)."""
        return self.module(x, timestep=times / 1000, **condition, return_dict=False)[0]

    def encode_text(self, text: str) -> Condition:
        """`encoder_hidden_states` (1, L, D), zero at padding."""
        states, *_ = self.loaded.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.max_sequence_length,
        )
        return {"encoder_hidden_states": states}


def write_aura_flow(folder: Path) -> Path:
    """Save a tiny `AuraFlowPipeline`."""
    from diffusers import (
        AuraFlowPipeline,
        AuraFlowTransformer2DModel,
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    words = t5_tokenizer()
    text = UMT5Config(vocab_size=len(words), d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    network = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    decoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    network.context_embedder.weight.data.mul_(30)  # prompts matter to so small a network
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.73)
    AuraFlowPipeline(words, UMT5EncoderModel(text), decoder, network, scheduler).save_pretrained(folder)
    return folder


def call(pipe: Any, texts: list[str], start: Tensor, steps: int, scale: float, output: str, negative: str = "") -> Any:
    """As `tiny_contract.Family` asks for it."""
    side = start.shape[-1] * pipe.vae_scale_factor
    images = pipe(
        texts,
        negative_prompt=[negative] * len(texts),
        num_inference_steps=steps,
        guidance_scale=scale,
        height=side,
        width=side,
        latents=start,
        max_sequence_length=64,
        output_type=output,
    )
    return images.images


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tiny_contract.Family:
    from diffusers import AuraFlowPipeline

    with torch.random.fork_rng():
        folder = write_aura_flow(tmp_path_factory.mktemp("aura") / "model")
    return tiny_contract.Family(AuraFlow, AuraFlowPipeline, folder, call, {"max_sequence_length": 64})


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_draws_as_its_pipeline(scale: float, family: tiny_contract.Family) -> None:
    adapter, pipe = family.make(), family.plain()
    start = tiny_contract.start_of(adapter)
    expected = call(pipe, tiny_contract.TEXTS, start, 3, scale, "latent")
    assert (sample(adapter, tiny_contract.TEXTS, start, 3, scale) - expected).abs().max() <= 1e-4
    assert (expected - start).abs().max() > 1e-1


def test_it_is_short() -> None:
    assert len(inspect.getsource(AuraFlow).splitlines()) <= 40
