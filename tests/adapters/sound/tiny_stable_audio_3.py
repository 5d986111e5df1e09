"""A Stable Audio 3 checkpoint of a few thousand weights: the real classes, as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import gemma_tokenizer

RATE, HOP = 800, 8  # samples a second, and a latent


def write_stable_audio_3(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `StableAudio3Pipeline`, stereo; `scheduler` overrides the distilled checkpoint's settings."""
    from diffusers import (
        AutoencoderSAME,
        FlowMatchEulerDiscreteScheduler,
        StableAudio3DiTModel,
        StableAudio3DurationEmbedder,
        StableAudio3Pipeline,
    )
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    torch.manual_seed(seed)
    words = gemma_tokenizer()
    words.model_max_length = 40
    shape = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
    }
    text = T5GemmaConfig(encoder=shape, decoder=shape, is_encoder_decoder=False, vocab_size=len(words))
    transformer = StableAudio3DiTModel(
        io_channels=4,
        embed_dim=32,
        depth=2,
        num_heads=2,
        cond_token_dim=16,
        global_cond_dim=16,
        local_add_cond_dim=5,
        timestep_features_dim=16,
        ff_mult=2,
        num_memory_tokens=2,
    )
    vae = AutoencoderSAME(
        patch_size=4,
        encoder_channels=8,
        encoder_c_mults=(2,),
        encoder_strides=(2,),
        encoder_transformer_depths=(1,),
        latent_dim=4,
        dim_heads=8,
        sampling_rate=RATE,
    )
    for part in (transformer, vae):
        for weight in part.parameters():  # fresh ones say 0 in many places
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.12)
    StableAudio3Pipeline(
        vae=vae,
        text_encoder=T5GemmaEncoderModel(text),
        tokenizer=words,
        duration_embedder=StableAudio3DurationEmbedder(16, 16, max_val=0.5),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            **({"num_train_timesteps": 1, "shift": 1.0, "stochastic_sampling": True} | scheduler)
        ),
    ).save_pretrained(folder)
    return folder
