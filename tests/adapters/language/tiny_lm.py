"""Causal language models of a few thousand weights: the real classes with a tokenizer of words, as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.adapters.language.tiny_tokens import qwen_tokenizer

WORDS = [*"abcdef", "red", "cube", "two", "dogs", "asleep", "good", "bad", "say", "user", "assistant"]
SPECIAL = ["<pad>", "<eos>", "<bos>", "<end>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant' }}{% if loud %}{{ ' say' }}{% endif %}{% endif %}"
)


def word_tokenizer(chat: bool = False) -> Any:
    """Every word of WORDS is a token; <end> ends turns and is no eos of the tokenizer's."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {f"{n}_token": f"<{n}>" for n in ("pad", "eos", "bos", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **named, additional_special_tokens=["<end>"])
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def letter_tokenizer(chat: bool = False) -> Any:
    """The byte-level tokenizer that transformers gives every Qwen2."""
    tokenizer = qwen_tokenizer([" ".join(WORDS)])
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def shape(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.3,  # far enough from uniform to tell tokens apart
        **more,
    }


def _qwen2(tokenizer: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**shape(tokenizer)))


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**shape(tokenizer), tie_word_embeddings=True, attention_dropout=0.5))


def _gpt2(tokenizer: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    given = {k: shape(tokenizer)[k] for k in ("vocab_size", "eos_token_id", "bos_token_id", "initializer_range")}
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **given))


def _gemma2(tokenizer: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    more = {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 4, "query_pre_attn_scalar": 8}
    return Gemma2ForCausalLM(Gemma2Config(**shape(tokenizer), **more))


def _cohere(tokenizer: Any) -> Any:
    from transformers import CohereConfig, CohereForCausalLM

    return CohereForCausalLM(CohereConfig(**shape(tokenizer), logit_scale=0.25))


def _granite(tokenizer: Any) -> Any:
    from transformers import GraniteConfig, GraniteForCausalLM

    return GraniteForCausalLM(GraniteConfig(**shape(tokenizer), logits_scaling=3.0))


def _bloom(tokenizer: Any) -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    given = {k: shape(tokenizer)[k] for k in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")}
    return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, **given))


def _opt(tokenizer: Any) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    given = {k: shape(tokenizer)[k] for k in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "init_std": 0.3}
    return OPTForCausalLM(OPTConfig(**sizes, **given, max_position_embeddings=64, dropout=0.5))


MODELS: dict[str, Callable[[Any], Any]] = {
    "qwen2": _qwen2,
    "llama": _llama,
    "gpt2": _gpt2,
    "gemma2": _gemma2,
    "cohere": _cohere,
    "granite": _granite,
    "bloom": _bloom,
    "opt": _opt,
}


def write_tiny_lm(folder: Path, kind: str = "qwen2", chat: bool = False, seed: int = 0) -> Path:
    """Save a tiny model and its tokenizer; the generation config names two ends, as chat models' do."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = letter_tokenizer(chat) if kind == "qwen2" else word_tokenizer(chat)
        model = MODELS[kind](tokenizer)
    turn = "<|im_end|>" if kind == "qwen2" else "<end>"
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(turn)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
