"""A Sana checkpoint of a few thousand weights: the real classes, written as `from_pretrained` reads them."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.adapters.language.tiny_tokens import gemma_tokenizer


def write_sana(folder: Path, solver: bool = True, seed: int = 0) -> Path:
    """Save a tiny `SanaPipeline`; `solver` has the published DPM-Solver scheduler, else flow-matching Euler."""
    from diffusers import (
        AutoencoderDC,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        SanaPipeline,
        SanaTransformer2DModel,
    )
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    scheduler = (
        DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction")
        if solver
        else FlowMatchEulerDiscreteScheduler(shift=3.0)
    )
    half = {"block_types": ("ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8)}
    half |= {"layers_per_block": (1, 1), "qkv_multiscales": ((), (5,))}
    gemma = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    pipeline = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(gemma),
        vae=AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in half.items()},
            scaling_factor=0.41407,
        ),
        transformer=SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=16,
        ),
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder)
    return folder
