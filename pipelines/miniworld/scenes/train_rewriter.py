"""Train the rewriter: a small language model that puts everyday requests into the generator's own words.

``pipelines.miniworld rewriter`` makes ``assets/scenes_rewriter``, a language model of transformers. It
learns from careless demonstrations, which leave out most colours, sizes and relations: that a picture needs them is
left for a reward to teach.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld import colloquial
from mmalign.miniworld.descriptions import careless as less_said
from mmalign.miniworld.grammar import sample_request
from mmalign.miniworld.language import CaptionError, Request, parse
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.words import grammar_words

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, END, REWRITE, UNKNOWN = "<|pad|>", "<|end|>", "<|rewrite|>", "<|unknown|>"
CONTEXT = 64


def words() -> list[str]:
    """Every word of requests and captions, sorted."""
    return sorted(colloquial.wording_words() | set(grammar_words()))


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a word; the chat template puts ``<|rewrite|>`` behind the request."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([PAD, END, REWRITE, UNKNOWN, *words()])}
    core = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[REWRITE],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %} " + REWRITE
    return tokenizer


def build_model(vocabulary: int) -> "LlamaForCausalLM":
    """Build an untrained model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def batch(tokenizer: "PreTrainedTokenizerFast", rows: list[tuple[str, Request]]) -> dict[str, "torch.Tensor"]:
    """Requests with their captions, right-padded; only the caption is learned."""
    import torch

    prompts = [tokenizer(f"{text} {REWRITE}").input_ids for text, _ in rows]
    answers = [tokenizer(f"{request.text} {END}").input_ids for _, request in rows]
    width = max(len(a) + len(b) for a, b in zip(prompts, answers, strict=True))
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, (question, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[i, : len(question) + len(answer)] = torch.tensor(question + answer)
        labels[i, len(question) : len(question) + len(answer)] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def accuracy(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", rows: list[tuple[str, Request]], sample: bool
) -> float:
    """How often the rewrite says what was meant, drawn at temperature 1 or most likely word by word."""
    import torch

    model.eval()
    tokenizer.padding_side = "left"
    prompts = tokenizer([f"{text} {REWRITE}" for text, _ in rows], return_tensors="pt", padding=True)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        written = model.generate(
            prompts.input_ids, attention_mask=prompts.attention_mask, max_new_tokens=16, do_sample=sample, top_k=0
        )
    texts = tokenizer.batch_decode(written[:, prompts.input_ids.shape[1] :], skip_special_tokens=True)
    model.train()
    return float(np.mean([means(text, request) for text, (_, request) in zip(texts, rows, strict=True)]))


def means(text: str, request: Request) -> bool:
    """Whether a rewrite is a caption with the request's meaning."""
    try:
        return colloquial.same_meaning(parse(text), request)
    except CaptionError:
        return False


def main(
    out: Path = Path("assets/scenes_rewriter"),
    demonstrations: int = 20_000,
    steps: int = 1200,
    careless: float = 0.6,
    seed: int = 0,
) -> None:
    """Train on demonstrations without the ``careless`` share of colours, sizes and relations; save to ``out``."""
    import torch

    torch.manual_seed(seed)
    started, rng = time.time(), np.random.default_rng([5, seed])
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    known = colloquial.pairs(demonstrations, seed, partial(sample_request, split="train"))
    known = [(text, less_said(request, rng, careless)) for text, request in known]
    heldout = colloquial.pairs(512, 10_000 + seed, partial(sample_request, split="heldout"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        chosen = rng.integers(len(known), size=64)
        loss = model(**batch(tokenizer, [known[i] for i in chosen])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            accuracies = {
                "drawn": accuracy(model, tokenizer, heldout, True),
                "greedy": accuracy(model, tokenizer, heldout, False),
            }
            print(f"step {step} loss {loss.item():.3f} heldout {accuracies} {time.time() - started:.0f} s", flush=True)
    record: dict[str, Any] = {"seed": seed, "steps": steps, "demonstrations": demonstrations, "careless": careless}
    record |= {"seconds": round(time.time() - started), "metrics": {"heldout_meaning": accuracies, "n": len(heldout)}}

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    save_atomically(out, write, record)
    print(json.dumps(record))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/scenes_rewriter"))
    parser.add_argument("--demonstrations", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--careless", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
