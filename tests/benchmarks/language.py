"""One small Qwen2 with random weights, the prompts and the reward, and mmalign's steps on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch

from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.core.types import Preference, Prompt
from mmalign.data.batches import Batches
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.policies.tokens import Tokens
from mmalign.rewards import Mix, rule
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.adapters.language.tiny_tokens import byte_letters
from tests.benchmarks.problem import one_step

PROMPTS, GROUP, LENGTH = 4, 8, 64


@dataclass(frozen=True)
class Size:
    """How many completions of a prompt a step writes, and of how many tokens at most."""

    group: int = GROUP
    length: int = LENGTH


USUAL = Size()

LR = 1e-6
VOCABULARY = 12_288
SAID = [a + b for a in ascii_lowercase for b in ascii_lowercase]  # words of one token each


def share_of_long_words(text: str) -> float:
    """A reward that costs nothing."""
    said = text.split()
    return sum(len(word) > 5 for word in said) / max(1, len(said))


@rule(modalities={"text"}, range=(0.0, 1.0))
def long_words(prompt: Prompt, output: str) -> float:
    """The share of words of more than five letters."""
    return share_of_long_words(output)


def written(folder: Path) -> Path:
    """The model and a tokenizer of one word a token, as transformers saves them: 28 M weights, tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    pieces = [*byte_letters(), *SAID, *(f"Ġ{word}" for word in SAID)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    vocabulary |= {f"Ġw{i}": i for i in range(len(vocabulary), VOCABULARY - 1)}  # said by the model alone
    merges = [*((word[0], word[1]) for word in SAID), *(("Ġ", word) for word in SAID)]
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)  # adds the token that ends texts
    end = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=end,
        bos_token_id=None,
        eos_token_id=end,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with the model."""
    folder = tempfile.TemporaryDirectory()
    written(Path(folder.name))
    return folder


def texts(rows: int, words: int, seed: int) -> list[str]:
    """Random texts of `words` tokens; every second one is an eighth shorter, so that a batch is padded."""
    rng = torch.Generator().manual_seed(seed)
    counts = [words - words // 8 * (i % 2) for i in range(rows)]
    return [" ".join(SAID[j] for j in torch.randint(len(SAID), (n,), generator=rng).tolist()) for n in counts]


def preferences(prompt_words: int, distinct: int) -> list[tuple[str, str, str]]:
    """16 pairs (prompt, chosen, rejected) over `distinct` prompts, completions of 64 tokens or an eighth less."""
    pairs = PROMPTS * GROUP // 2
    prompts = texts(distinct, prompt_words, 1)
    said = [f" {text}" for text in texts(2 * pairs, LENGTH - 1, 2)]
    return [(prompts[i % distinct], said[2 * i], said[2 * i + 1]) for i in range(pairs)]


def loaded(folder: Path) -> CausalLM:
    """All weights trained, float32, on the CPU."""
    return CausalLM(model=str(folder), train="full", chat=False, device="cpu").load()


def _session(adapter: CausalLM, items: list[Any]) -> Session:
    trainer = Trainer(steps=1 << 30, prompts_per_step=len(items), lr=LR)
    rule = Update(list(adapter.trainable().values()), trainer)
    return Session(trainer, rule, Batches(items, len(items), 0), Streams(0))


def grpo(adapter: CausalLM, prompts: Sequence[str], size: Size = USUAL) -> Callable[[], None]:
    """A GRPO step: every prompt, completed `size.group` times, one update."""
    session = _session(adapter, [Prompt(text) for text in prompts])
    objective = GRPO(reward=Mix({"long_words": long_words()}), group_size=size.group, weighting="per_step")
    return one_step(Tokens(adapter, max_new_tokens=size.length), objective, session)


def dpo(adapter: CausalLM, pairs: Sequence[tuple[str, str, str]]) -> Callable[[], None]:
    """A DPO step on given pairs (prompt, chosen, rejected): the reference on both sides, one update."""
    rows = [Preference(Prompt(p), c, r) for p, c, r in pairs]
    session = _session(adapter, rows)
    return one_step(Tokens(adapter, entropy="off"), DPO(beta=0.1, reference_rows=len(rows)), session)
