"""Audio-text models of a few thousand weights: real classes with their real processors, as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_lm import SPECIAL, WORDS, shape

RATE, FRAMES, MELS = 16_000, 80, 8  # one second is heard at most
HEARD = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<image>",
    "video_token": "<video>",
    "vision_bos_token": "<boi>",
    "vision_eos_token": "<eoi>",
}
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for part in m['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}<end> {% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
)


def tokenizer() -> Any:
    """Every word a token, and what stands around media."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS, *HEARD.values()])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {f"{n}_token": f"<{n}>" for n in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, **named, additional_special_tokens=["<end>"], extra_special_tokens=HEARD
    )


def _ears() -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, hop_length=RATE // FRAMES, chunk_length=1)


def _tower(**more: Any) -> dict[str, Any]:
    return {
        "num_mel_bins": MELS,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 16,
        "max_source_positions": FRAMES // 2,
        **more,
    }


def _qwen2_audio() -> tuple[Any, Any]:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    words = tokenizer()
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **_tower()},
        text_config={"model_type": "qwen2", **shape(words, max_position_embeddings=128)},
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return Qwen2AudioForConditionalGeneration(config), Qwen2AudioProcessor(_ears(), words)


def _qwen2_5_omni() -> tuple[Any, Any]:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = tokenizer()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    places = {f"{n}_token_index": words.convert_tokens_to_ids(HEARD[f"{n}_token"]) for n in ("audio", "image", "video")}
    config = Qwen2_5OmniThinkerConfig(
        audio_config=_tower(n_window=10, output_dim=32),
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32,
        },
        text_config={**shape(words, max_position_embeddings=128), "rope_parameters": rope},
        vision_start_token_id=words.convert_tokens_to_ids("<boi>"),
        audio_start_token_id=words.convert_tokens_to_ids("<|audio_bos|>"),
        audio_end_token_id=words.convert_tokens_to_ids("<|audio_eos|>"),
        **places,
    )  # fmt: skip
    sizes = {"patch_size": 4, "merge_size": 2, "min_pixels": 64, "max_pixels": 256}
    processor = Qwen2_5OmniProcessor(Qwen2VLImageProcessor(**sizes), Qwen2VLVideoProcessor(**sizes), _ears(), words)
    return Qwen2_5OmniThinkerForConditionalGeneration(config), processor


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {"qwen2_audio": _qwen2_audio, "qwen2_5_omni": _qwen2_5_omni}


def write_tiny_alm(folder: Path, kind: str = "qwen2_audio", seed: int = 0) -> Path:
    """Save a tiny model and its processor; weights far enough from 0 that sounds tell in the logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = MODELS[kind]()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    processor.chat_template = TEMPLATE
    words = processor.tokenizer
    model.generation_config.eos_token_id = [words.eos_token_id, words.convert_tokens_to_ids("<end>")]
    model.generation_config.pad_token_id = words.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
