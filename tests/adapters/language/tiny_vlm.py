"""Image-text-to-text models of a few thousand weights: real classes with their real processors, as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_lm import SPECIAL, WORDS, shape

SIDE = 16  # pixels of a square picture
PATCH = 4
PICTURES = ["<image>", "<boi>", "<eoi>", "<video>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}PLACE {% else %}{{ part['text'] }} {% endif %}{% endfor %}<end> {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


def tokenizer(**more: Any) -> Any:
    """Every word a token, and what the families put around pictures; split at spaces and around special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS, *PICTURES])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {f"{n}_token": f"<{n}>" for n in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, **named, additional_special_tokens=["<end>", *PICTURES], **more
    )


def _text(words: Any) -> dict[str, Any]:
    return shape(words, max_position_embeddings=128)


def _qwen2_vl() -> tuple[Any, Any]:
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words = tokenizer(extra_special_tokens={"image_token": "<image>", "video_token": "<video>"})
    ids = {name: words.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = Qwen2VLConfig(
        text_config={**_text(words), "rope_parameters": rope},
        vision_config={
            "depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH,
            "initializer_range": 0.3,
        },
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=words.convert_tokens_to_ids("<boi>"),
        vision_end_token_id=words.convert_tokens_to_ids("<eoi>"),
        initializer_range=0.3,
    )  # fmt: skip
    sizes = {"patch_size": PATCH, "merge_size": 2, "min_pixels": 8 * 8, "max_pixels": SIDE * SIDE}
    images, videos = Qwen2VLImageProcessor(**sizes), Qwen2VLVideoProcessor(**sizes)
    return Qwen2VLForConditionalGeneration(config), Qwen2VLProcessor(images, words, videos)


def _llava() -> tuple[Any, Any]:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer(extra_special_tokens={"image_token": "<image>"})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, initializer_range=0.3,
    )  # fmt: skip
    text = LlamaConfig(**_text(words))
    place = words.convert_tokens_to_ids("<image>")
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=place, image_seq_length=16)
    )
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    more = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return model, LlavaProcessor(images, words, **more)


def _idefics3() -> tuple[Any, Any]:
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        LlamaConfig,
    )

    words = tokenizer()
    config = Idefics3Config(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.3,
        },
        text_config=LlamaConfig(**_text(words)),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = Idefics3ImageProcessor(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    return Idefics3ForConditionalGeneration(config), Idefics3Processor(images, words, image_seq_len=4)


def _gemma3() -> tuple[Any, Any]:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    words = tokenizer(extra_special_tokens={"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"})
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    text = Gemma3TextConfig(**_text(words), head_dim=8, sliding_window=6, query_pre_attn_scalar=8)
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        initializer_range=0.3,
    )
    images = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    return Gemma3ForConditionalGeneration(config), Gemma3Processor(images, words, image_seq_length=4)


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": _qwen2_vl,
    "llava": _llava,
    "idefics3": _idefics3,
    "gemma3": _gemma3,
}


def write_tiny_vlm(folder: Path, kind: str = "llava", chat: bool = False, seed: int = 0) -> Path:
    """Save a tiny model and its processor; weights far enough from 0 that pictures tell in the logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = MODELS[kind]()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    if chat:
        processor.chat_template = TEMPLATE.replace(
            "PLACE", f"<fake_token_around_image> {processor.image_token} <end_of_utterance>"
        )
    words = processor.tokenizer
    model.generation_config.eos_token_id = [words.eos_token_id, words.convert_tokens_to_ids("<end>")]
    model.generation_config.pad_token_id = words.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
