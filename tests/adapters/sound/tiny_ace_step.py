"""An ACE-Step checkpoint of a few thousand weights: the real classes, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.adapters.language.tiny_tokens import qwen_tokenizer

RATE, HOP = 80, 4  # few a second, for 30 seconds of reference are always listened to


def write_ace_step(folder: Path, seed: int = 0, turbo: bool = True) -> Path:
    """Save a tiny `AceStepPipeline`, stereo."""
    from diffusers import (
        AceStepConditionEncoder,
        AceStepPipeline,
        AceStepTransformer1DModel,
        AutoencoderOobleck,
        FlowMatchEulerDiscreteScheduler,
    )
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    words = qwen_tokenizer(["# Instruction # Caption # Metas - bpm: N/A duration: 30 seconds # Languages # Lyric"])
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    text = Qwen3Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, initializer_range=0.3, **heads
    )
    transformer = AceStepTransformer1DModel(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        in_channels=12,
        audio_acoustic_hidden_dim=4,
        patch_size=2,
        sliding_window=4,
        is_turbo=turbo,
        **heads,
    )
    listening = AceStepConditionEncoder(
        hidden_size=16,
        intermediate_size=32,
        text_hidden_dim=16,
        timbre_hidden_dim=4,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        sliding_window=8,
        **heads,
    )
    listening.silence_latent = torch.randn(1, 15_000, 4)
    for weight in transformer.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.25)
    AceStepPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[2, 2],
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=4,
            audio_channels=2,
            sampling_rate=RATE,
        ),
        text_encoder=Qwen3Model(text),
        tokenizer=words,
        transformer=transformer,
        condition_encoder=listening,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    ).save_pretrained(folder)
    return folder
