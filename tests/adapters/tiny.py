"""Stable Diffusion checkpoints of a few thousand weights: the real classes, written as `from_pretrained` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import clip_tokenizer, t5_tokenizer

LENGTH = 24  # tokens per text: enough for a test prompt, cheap to attend to


def write_tiny_sd(folder: Path, prediction: str = "epsilon", seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `StableDiffusionPipeline` with the scheduler of SD 1.5 (v-prediction is SD 2.1's)."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    clip = clip_tokenizer(LENGTH)
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    pipeline = StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=_clip(clip, 16),
        tokenizer=clip,
        unet=_unet(16),
        scheduler=PNDMScheduler(skip_prk_steps=True, prediction_type=prediction, **(noise | scheduler)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _written(pipeline, folder)


def write_tiny_sdxl(folder: Path, seed: int = 0) -> Path:
    """Save a tiny `StableDiffusionXLPipeline`, both encoders, with the scheduler that SDXL has."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(seed)
    clip = clip_tokenizer(LENGTH)
    sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    pipeline = StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=_clip(clip, 16),
        tokenizer=clip,
        text_encoder_2=_clip(clip, 24, projected=True),
        tokenizer_2=clip_tokenizer(LENGTH),
        unet=_unet(16 + 24, **sizes, projection_class_embeddings_input_dim=24 + 6 * 4, use_linear_projection=True),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    return _written(pipeline, folder)


def write_tiny_sd3(folder: Path, t5: bool = True, seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `StableDiffusion3Pipeline` with or without its T5 encoder; `scheduler` overrides shift 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    clip, words = clip_tokenizer(LENGTH), t5_tokenizer()
    shape = {"d_model": 40, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=40,
            caption_projection_dim=16,
            pooled_projection_dim=16 + 24,
            out_channels=4,
            pos_embed_max_size=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**({"shift": 3.0} | scheduler)),
        vae=_autoencoder(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(clip, 16, projected=True),
        tokenizer=clip,
        text_encoder_2=_clip(clip, 24, projected=True),
        tokenizer_2=clip_tokenizer(LENGTH),
        text_encoder_3=T5EncoderModel(T5Config(vocab_size=len(words), **shape)) if t5 else None,
        tokenizer_3=words if t5 else None,
    )
    return _written(pipeline, folder)


def _written(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


def _autoencoder(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **more,
    )


def _unet(text_width: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=text_width,
        **more,
    )


def _clip(tokenizer: Any, width: int, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
