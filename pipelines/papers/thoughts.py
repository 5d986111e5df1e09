"""A rewriter that thinks first, against one that answers at once, and one that learned to think of something else.

    python -m pipelines.papers.thoughts

The first stage of PromptEnhancer with a chain of thought on the embedded rewriter: four words are added to its
vocabulary for the tags, and it imitates "<think> the things and how they stand </think> <answer> caption </answer>".
The second stage is GRPO on the clauses that the answer has right, as read from inside its tags. Equal updates for all.
"""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import torch

from mmalign.core.rng import stream
from mmalign.core.types import Rollout, Scores
from mmalign.miniworld.language import parse
from mmalign.objectives.grpo import GRPO
from mmalign.policies.tokens import Tokens
from mmalign.rewards.parsing import Unreadable, answer_of
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
IMITATED, ALIGNED, LONGEST = 80, 30, 44


def with_words(words: list[str], folder: Path) -> str:
    """The embedded rewriter with further words in its vocabulary, each at the mean of all others."""
    from transformers import AutoModelForCausalLM

    source = Path(world.MODEL)
    copytree(source, folder)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(words)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = AutoModelForCausalLM.from_pretrained(source, local_files_only=True)
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[-len(words) :] = layer.weight[: -len(words)].mean(0)
    model.save_pretrained(folder)
    return str(folder)


def thought(caption: str) -> str:
    """The things of a caption one by one, and how they stand."""
    request = parse(caption)
    parts = [part.strip() for part in caption.split(f" {request.relation or 'and'} ")]
    return " , ".join([*parts, *([request.relation] if request.relation else [])])


class OfAnswer(world.Truth):
    """The truth of what stands in the answer's tags; where that cannot be read, 0."""

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B outputs."""
        return super().__call__(Rollout.of(rollout.prompts, [read(text) for text in rollout.output]))


def read(text: str) -> str:
    """The answer of an output that uses the tags, "" where it cannot be read; else all of it."""
    try:
        return answer_of(text, "answer" if "<" in text else "whole")
    except Unreadable:
        return ""


def measured(learner: Tokens) -> dict[str, float]:
    """Meaning and clauses of greedy answers to held-out requests, and how many can be read."""
    rows = world.rows("requests_heldout")
    texts = [read(text) for text in world.greedy(learner, [row["prompt"] for row in rows])]
    pairs = [(text, row["request"]) for text, row in zip(texts, rows, strict=True)]
    return {
        "truth": sum(world.means_the_same(*pair) for pair in pairs) / len(pairs),
        "clauses": sum(world.clause_share(*pair) for pair in pairs) / len(pairs),
        "read": sum(bool(text) for text in texts) / len(texts),
    }


def measure(seed: int) -> Arms:
    """Every arm after imitation and after GRPO."""
    asked = world.rows("requests_train")
    others = [asked[i]["request"] for i in torch.randperm(len(asked), generator=stream(seed, "others")).tolist()]
    arms: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        start = with_words(TAGS, Path(folder) / "start")
        for arm in ("at once", "thoughts", "thoughts of other requests"):
            about = others if arm == "thoughts of other requests" else [row["request"] for row in asked]
            pairs = [
                (row["prompt"], row["request"] if arm == "at once" else tagged(thinks, row["request"]))
                for row, thinks in zip(asked, about, strict=True)
            ]
            learner = world.policy(start, max_new_tokens=LONGEST)
            world.imitate(learner, pairs, IMITATED, seed=seed)
            after = {f"imitated_{name}": value for name, value in measured(learner).items()}
            objective = GRPO(reward=OfAnswer(), group_size=8)
            world.tune(learner, objective, world.requests(), ALIGNED, size=8, lr=3e-4, seed=seed)
            arms[arm] = {**after, **measured(learner)}
    return arms


def tagged(about: str, caption: str) -> str:
    """What a rewriter that thinks should write."""
    return f"<think> {thought(about)} </think> <answer> {caption} </answer>"


def holds(means: Means) -> bool:
    """Thoughts leave clauses no lower than answers at once, above thoughts of other requests, and answers are read."""
    clauses = {arm: one["clauses"] for arm, one in means.items()}
    own = clauses["thoughts"]
    better = own >= clauses["at once"] and own > clauses["thoughts of other requests"]
    return better and means["thoughts"]["read"] >= 0.95


EXPERIMENT = Experiment(
    number=28,
    name="thoughts",
    claim="A rewriter that thinks of the things first says no less that is right, at equal updates.",
    falsified_if="right clauses are below those of answers at once, or not above those with thoughts of other requests",
    control="thoughts that belong to other requests",
    measure=measure,
    holds=holds,
    caveat="Thoughts are longer outputs: equal updates cost more. No pictures are made here.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
