"""Language models of real shapes with random weights, and the same at toy size for a machine without a GPU.

| name | shape of | parameters |
|---|---|---|
| lm_0_5b | Qwen2.5-0.5B | 0.49 B |
| lm_3b | Qwen2.5-3B | 3.1 B |
| mllm_0_5b | Qwen2-VL's tower before Qwen2.5-0.5B, pictures of 224 pixels | 1.2 B |
| mllm_3b | the same before Qwen2.5-3B, as in Qwen2.5-VL-3B | 3.8 B |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.adapters.language.tiny_lm import word_tokenizer
from tests.adapters.language.tiny_vlm import tokenizer as seeing_tokenizer
from tests.gpu.real_sizes import REAL, Sizes

VOCABULARY = 151_936


def write_lm(folder: Path, width: int, layers: int, heads: int, inner: int, sizes: Sizes = REAL) -> Path:
    """`Qwen2ForCausalLM` with two heads of keys, tied, and a tokenizer of few words."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = word_tokenizer()
    model = sizes.network(Qwen2ForCausalLM, config=Qwen2Config(**_shape(words, width, layers, heads, inner, sizes)))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_mllm(folder: Path, width: int, layers: int, heads: int, inner: int, sizes: Sizes = REAL) -> Path:
    """`Qwen2VLForConditionalGeneration` with the tower of Qwen2-VL and a language model as of `write_lm`."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words = seeing_tokenizer(extra_special_tokens={"image_token": "<image>", "video_token": "<video>"})
    ids = {name: words.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video", "boi", "eoi")}
    patch, eighth = sizes.pick(14, 4), width // heads // 8  # of a head's size; times and places share half of it
    rope = {"rope_type": "default", "mrope_section": sizes.pick([eighth, 3 * eighth // 2, 3 * eighth // 2], [1, 1, 2])}
    config = Qwen2VLConfig(
        text_config={
            **_shape(words, width, layers, heads, inner, sizes),
            "rope_parameters": rope | {"rope_theta": 1e6},
        },
        vision_config={
            "depth": sizes.pick(32, 2),
            "embed_dim": sizes.pick(1280, 16),
            "num_heads": sizes.pick(16, 2),
            "hidden_size": sizes.pick(width, 32),
            "patch_size": patch,
        },
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["boi"],
        vision_end_token_id=ids["eoi"],
    )
    sizes.network(Qwen2VLForConditionalGeneration, config=config).save_pretrained(folder)
    side = sizes.pick(224, 16)
    looks = {"patch_size": patch, "merge_size": 2, "min_pixels": side * side, "max_pixels": side * side}
    Qwen2VLProcessor(Qwen2VLImageProcessor(**looks), words, Qwen2VLVideoProcessor(**looks)).save_pretrained(folder)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    "lm_0_5b": lambda folder, sizes=REAL: write_lm(folder, 896, 24, 14, 4864, sizes),
    "lm_3b": lambda folder, sizes=REAL: write_lm(folder, 2048, 36, 16, 11_008, sizes),
    "mllm_0_5b": lambda folder, sizes=REAL: write_mllm(folder, 896, 24, 14, 4864, sizes),
    "mllm_3b": lambda folder, sizes=REAL: write_mllm(folder, 2048, 36, 16, 11_008, sizes),
}


def _shape(words: Any, width: int, layers: int, heads: int, inner: int, sizes: Sizes) -> dict[str, Any]:
    return {
        "vocab_size": sizes.pick(VOCABULARY, len(words)),
        "hidden_size": sizes.pick(width, 32),
        "intermediate_size": sizes.pick(inner, 48),
        "num_hidden_layers": sizes.pick(layers, 2),
        "num_attention_heads": sizes.pick(heads, 4),
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
