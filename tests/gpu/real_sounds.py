"""Generators of sound at real widths with random weights, and the same at toy widths for a machine without a GPU.

| family | network | width | depth here | published depth |
|---|---|---|---|---|
| stable_audio | Stable Audio Open's transformer, 1.06 B, and its autoencoder, 156 M | 1536 | 24 | 24 |
| audio_ldm2 | AudioLDM 2's U-Net, 350 M, its autoencoder and vocoder | 128 to 640 | all | all |

Text encoders keep their real output widths and few layers, as for pictures (`real_sizes.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import t5_tokenizer
from tests.adapters.sound.tiny_ldm import NOISE, roberta_tokenizer
from tests.gpu.real_sizes import REAL, Sizes


def t5(sizes: Sizes, width: int) -> Any:
    """A shallow T5 encoder of real width."""
    from transformers import T5Config, T5EncoderModel

    heads = sizes.pick(12, 2)
    shape = {"d_model": width, "d_kv": sizes.pick(64, 8), "d_ff": 2 * width, "num_layers": 1, "num_heads": heads}
    return T5EncoderModel(T5Config(vocab_size=len(t5_tokenizer()), **shape))


def write_stable_audio(folder: Path, sizes: Sizes = REAL) -> Path:
    """`StableAudioPipeline` with the widths of Stable Audio Open 1.0."""
    from diffusers import (
        AutoencoderOobleck,
        CosineDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )

    torch.manual_seed(0)
    words, told = t5_tokenizer(), sizes.pick(768, 12)
    words.model_max_length = 128
    channels = sizes.pick(64, 4)
    StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=sizes.pick(128, 8),
            downsampling_ratios=sizes.pick([2, 4, 4, 8, 8], [2, 2]),
            channel_multiples=sizes.pick([1, 2, 4, 8, 16], [1, 2]),
            decoder_channels=sizes.pick(128, 4),
            decoder_input_channels=channels,
            audio_channels=2,
            sampling_rate=sizes.pick(44_100, 800),
        ),
        text_encoder=t5(sizes, sizes.pick(768, 16)),
        projection_model=StableAudioProjectionModel(sizes.pick(768, 16), told, 0, 512),
        tokenizer=words,
        transformer=sizes.network(
            StableAudioDiTModel,
            sample_size=sizes.pick(1024, 24),
            in_channels=channels,
            out_channels=channels,
            num_layers=sizes.pick(24, 2),
            attention_head_dim=sizes.pick(64, 16),
            num_attention_heads=sizes.pick(24, 2),
            num_key_value_attention_heads=sizes.pick(12, 1),
            cross_attention_dim=told,
            time_proj_dim=sizes.pick(256, 16),
            global_states_input_dim=2 * told,
            cross_attention_input_dim=told,
        ),
        scheduler=CosineDPMSolverMultistepScheduler(solver_order=2, sigma_min=0.3, sigma_max=500),
    ).save_pretrained(folder)
    return folder


def write_audio_ldm2(folder: Path, sizes: Sizes = REAL) -> Path:
    """`AudioLDM2Pipeline` with the widths of cvssp/audioldm2; its language model has no head, as published."""
    from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, DDIMScheduler
    from transformers import ClapFeatureExtractor, GPT2Config, GPT2Model

    torch.manual_seed(0)
    words, pieces = roberta_tokenizer(64), t5_tokenizer()
    wide, said, clap = sizes.pick(1024, 16), sizes.pick(768, 24), sizes.pick(512, 16)
    channels, depth = sizes.pick(8, 4), sizes.pick(4, 2)
    widths = sizes.pick((128, 256, 384, 640), (8, 16))
    states = GPT2Config(n_embd=said, n_layer=sizes.pick(2, 1), n_head=sizes.pick(12, 2), n_positions=512)
    states.max_new_tokens = 8
    unet = sizes.network(
        AudioLDM2UNet2DConditionModel,
        sample_size=sizes.pick(256, 8),
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (depth - 1)),
        up_block_types=(*("CrossAttnUpBlock2D",) * (depth - 1), "UpBlock2D"),
        block_out_channels=widths,
        layers_per_block=sizes.pick(2, 1),
        norm_num_groups=sizes.pick(32, 4),
        attention_head_dim=sizes.pick(8, 2),
        cross_attention_dim=((None, said, wide),) * depth,
    )
    AudioLDM2Pipeline(
        vae=_mel_autoencoder(sizes, channels),
        text_encoder=_clap(words, clap),
        text_encoder_2=t5(sizes, wide),
        projection_model=AudioLDM2ProjectionModel(clap, wide, said),
        language_model=GPT2Model(states),
        tokenizer=words,
        tokenizer_2=pieces,
        feature_extractor=ClapFeatureExtractor(feature_size=8, sampling_rate=16_000),
        unet=unet,
        scheduler=DDIMScheduler(**NOISE),
        vocoder=_vocoder(sizes),
    ).save_pretrained(folder)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {"stable_audio": write_stable_audio, "audio_ldm2": write_audio_ldm2}


def _mel_autoencoder(sizes: Sizes, channels: int) -> Any:
    from diffusers import AutoencoderKL

    widths = sizes.pick((128, 256, 512), (8, 16))
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=sizes.pick(2, 1),
        latent_channels=channels,
        norm_num_groups=sizes.pick(32, 4),
    )


def _vocoder(sizes: Sizes) -> Any:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=sizes.pick(64, 8),
            sampling_rate=sizes.pick(16_000, 1600),
            upsample_initial_channel=sizes.pick(1024, 16),
            upsample_rates=sizes.pick([5, 4, 2, 2, 2], [2, 2]),
            upsample_kernel_sizes=sizes.pick([16, 16, 8, 4, 4], [4, 4]),
            normalize_before=False,
        )
    )


def _clap(words: Any, width: int) -> Any:
    from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

    text = ClapTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=80,
        projection_dim=width,
    )
    audio = ClapAudioConfig(
        num_mel_bins=8,
        spec_size=32,
        window_size=4,
        patch_size=4,
        patch_stride=[4, 4],
        hidden_size=32,
        patch_embeds_hidden_size=16,
        depths=[1, 1],
        num_attention_heads=[2, 2],
        num_hidden_layers=2,
    )
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=width))
