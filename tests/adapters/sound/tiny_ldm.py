"""AudioLDM, MusicLDM and AudioLDM 2 checkpoints of a few thousand weights: the real classes, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import byte_letters, t5_tokenizer

RATE, HOP, BANDS, SCALE = 1600, 4, 8, 2  # the autoencoder halves both axes
NOISE = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
NOISE |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # as published


def write_music_ldm(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `MusicLDMPipeline`."""
    from diffusers import MusicLDMPipeline
    from transformers import ClapFeatureExtractor

    torch.manual_seed(seed)
    words = roberta_tokenizer()
    shared = _shared(**scheduler)
    hears = ClapFeatureExtractor(feature_size=8, sampling_rate=RATE, hop_length=4)
    MusicLDMPipeline(
        text_encoder=_clap(words), tokenizer=words, feature_extractor=hears, unet=_labelled_unet(), **shared
    ).save_pretrained(folder)
    return folder


def write_audio_ldm(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Save a tiny `AudioLDMPipeline`."""
    from diffusers import AudioLDMPipeline
    from transformers import ClapTextModelWithProjection

    torch.manual_seed(seed)
    words = roberta_tokenizer()
    text = ClapTextModelWithProjection(_clap_text(words))
    shared = _shared(**scheduler)
    AudioLDMPipeline(text_encoder=text, tokenizer=words, unet=_labelled_unet(), **shared).save_pretrained(folder)
    return folder


def write_audio_ldm2(folder: Path, seed: int = 0, head: bool = True, **scheduler: Any) -> Path:
    """Save a tiny `AudioLDM2Pipeline`; its language model has a head, or not as in published checkpoints."""
    from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
    from transformers import ClapFeatureExtractor, GPT2Config, GPT2LMHeadModel, GPT2Model, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    words, pieces = roberta_tokenizer(), t5_tokenizer()
    pieces.model_max_length = 48
    t5 = {"d_model": 20, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    gpt = GPT2Config(
        n_embd=24,
        n_layer=2,
        n_head=2,
        n_positions=64,
        vocab_size=40,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    gpt.max_new_tokens = 3
    unet = AudioLDM2UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=((None, 24, 20), (None, 24, 20)),
    )
    AudioLDM2Pipeline(
        text_encoder=_clap(words),
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=len(pieces), **t5)),
        projection_model=AudioLDM2ProjectionModel(16, 20, 24),
        language_model=(GPT2LMHeadModel if head else GPT2Model)(gpt),
        tokenizer=words,
        tokenizer_2=pieces,
        feature_extractor=ClapFeatureExtractor(feature_size=8, sampling_rate=RATE, hop_length=4),
        unet=unet,
        **_shared(**scheduler),
    ).save_pretrained(folder)
    return folder


def roberta_tokenizer(length: int = 32) -> Any:
    """A `RobertaTokenizer` of single letters; id 1 pads."""
    from transformers import RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *byte_letters()]
    return RobertaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=length)


def _clap_text(words: Any) -> Any:
    from transformers import ClapTextConfig

    return ClapTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        projection_dim=16,
        initializer_factor=20.0,  # else all texts are nearly alike before training
    )


def _clap(words: Any) -> Any:
    from transformers import ClapAudioConfig, ClapConfig, ClapModel

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
    return ClapModel(ClapConfig(text_config=_clap_text(words), audio_config=audio, projection_dim=16))


def _labelled_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=(8, 16),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=16,
        class_embeddings_concat=True,
    )


def _shared(**scheduler: Any) -> dict[str, Any]:
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.9,
    )
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=BANDS,
            sampling_rate=RATE,
            upsample_initial_channel=16,
            upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
            normalize_before=False,
            initializer_range=0.3,
        )
    )
    return {"vae": vae, "vocoder": vocoder, "scheduler": DDIMScheduler(**(NOISE | scheduler))}
