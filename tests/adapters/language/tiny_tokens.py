"""Tokenizers built on the spot: every character is a word of the vocabulary, so any text has its own tokens."""

from __future__ import annotations

import string
from typing import Any

PRINTABLE = string.ascii_letters + string.digits + string.punctuation


def byte_letters() -> list[str]:
    """The 256 visible letters that byte-level tokenizers write bytes with."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def clip_tokenizer(length: int = 77) -> Any:
    """A `CLIPTokenizer` of single letters; id 0 starts, id 1 ends and pads."""
    from transformers import CLIPTokenizer

    letters = byte_letters()
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=length)


def t5_tokenizer() -> Any:
    """A `T5TokenizerFast` of single letters; id 0 pads, id 1 ends."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in PRINTABLE)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def gemma_tokenizer() -> Any:
    """A `GemmaTokenizer` of single letters with byte fallback; it starts every text with <bos>."""
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{b:02X}>" for b in range(256)), "▁", *PRINTABLE]
    return GemmaTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], padding_side="right")


def qwen_tokenizer(corpus: list[str]) -> Any:
    """A byte-level `Qwen2Tokenizer` whose merges are learned from `corpus`, so its words are single tokens."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=byte_letters(), show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=learned["vocab"], merges=[tuple(m) for m in learned["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer
