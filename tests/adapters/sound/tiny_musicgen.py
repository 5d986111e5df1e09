"""A MusicGen of a few thousand weights: the real classes, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.adapters.language.tiny_tokens import t5_tokenizer

RATE, HOP, K, V = 800, 4, 4, 16


def write_musicgen(folder: Path, stereo: bool = False, seed: int = 0) -> Path:
    """Save a tiny `MusicgenForConditionalGeneration` and its tokenizer; stereo has K codebooks for each side."""
    from transformers import (
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )

    words = t5_tokenizer()
    codec = EncodecConfig(
        sampling_rate=RATE,
        upsampling_ratios=[2, 2],
        hidden_size=8,
        num_filters=4,
        num_lstm_layers=1,
        codebook_size=V,
        codebook_dim=8,
        use_causal_conv=False,
        target_bandwidths=[K * 4 * RATE / HOP / 1000],  # all K codebooks of 4 bits
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=V,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        num_codebooks=K * (1 + stereo),
        audio_channels=1 + stereo,
        pad_token_id=V,
        bos_token_id=V,
        initializer_factor=0.3,
        dropout=0.1,
    )
    text = T5Config(vocab_size=len(words), d_model=20, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MusicgenForConditionalGeneration(
            MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
        )
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()
        for weight in model.decoder.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    given = {"decoder_start_token_id": V, "pad_token_id": V, "bos_token_id": V, "guidance_scale": 3.0}
    for name, value in given.items():
        setattr(model.generation_config, name, value)
    model.decoder.generation_config.pad_token_id = V
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
