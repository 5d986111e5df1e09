"""A Stable Audio checkpoint of a few thousand weights: the real classes, written as `from_pretrained` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import t5_tokenizer

RATE, HOP, FRAMES = 800, 4, 24  # 0.12 s


def write_stable_audio(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `StableAudioPipeline`, stereo; `scheduler` overrides the published settings."""
    from diffusers import (
        AutoencoderOobleck,
        CosineDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    words = t5_tokenizer()
    words.model_max_length = 24
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    pipeline = StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[2, 2],
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=4,
            audio_channels=2,
            sampling_rate=RATE,
        ),
        text_encoder=T5EncoderModel(T5Config(vocab_size=len(words), **shape)),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=16, conditioning_dim=12, min_value=0, max_value=512
        ),
        tokenizer=words,
        transformer=StableAudioDiTModel(
            sample_size=FRAMES,
            in_channels=4,
            num_layers=2,
            attention_head_dim=16,  # less than 16 and the rotation is empty
            num_attention_heads=2,
            num_key_value_attention_heads=1,
            out_channels=4,
            cross_attention_dim=16,
            time_proj_dim=16,
            global_states_input_dim=24,
            cross_attention_input_dim=12,
        ),
        scheduler=CosineDPMSolverMultistepScheduler(
            **({"solver_order": 2, "sigma_min": 0.3, "sigma_max": 500} | scheduler)
        ),
    )
    pipeline.save_pretrained(folder)
    return folder
