"""The language world of the experiments: the embedded rewriter, its comparisons and requests, and their exact truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mmalign.adapters import load_adapter
from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.core.errors import ConfigError
from mmalign.core.experience import Experience
from mmalign.core.files import require_local
from mmalign.core.objective import ObjectiveTraits
from mmalign.core.protocols import one_alone
from mmalign.core.rng import stream
from mmalign.core.types import Preference, Prompt, Rollout, Scores
from mmalign.miniworld.colloquial import same_meaning
from mmalign.miniworld.language import CaptionError, parse
from mmalign.objectives.sft import SFT
from mmalign.policies.tokens import Tokens

MODEL = "assets/scenes_rewriter"
LONGEST = 16  # tokens of a caption


@lru_cache(maxsize=8)
def rows(name: str) -> list[dict[str, Any]]:
    """The rows of `assets/prompts/<name>.jsonl`."""
    text = require_local(f"assets/prompts/{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def policy(model: str | Path = MODEL, train: str = "full", **options: Any) -> Tokens:
    """The rewriter as a policy on the CPU; it starts from `model`."""
    adapter = load_adapter(name="causal_lm", model=str(model), train=train, device="cpu")
    return Tokens(adapter, **{"max_new_tokens": LONGEST, **options})


def saved(tuned: Tokens, folder: Path) -> str:
    """The folder of the policy's weights as they are now."""
    assert isinstance(tuned.adapter, CausalLM)
    folder.mkdir(parents=True, exist_ok=True)
    tuned.adapter.save(folder)
    return str(folder)


def tune(
    learner: Any, objective: Any, data: Sequence[Any], steps: int, *, size: int = 32, lr: float = 1e-4, seed: int = 0
) -> None:
    """Plain AdamW steps of an objective on batches of `size` rows, which come in random order again and again.

    A list among the rows is a set that is never cut.
    """
    optimizer = torch.optim.AdamW(learner.adapter.trainable().values(), lr=lr, weight_decay=0.0)
    order, rng = _batches(len(data), size, seed), stream(seed, "tune")
    for _ in range(steps):
        drawn = (data[i] for i in next(order))
        batch = [row for each in drawn for row in (each if isinstance(each, list) else [each])]
        with torch.no_grad():
            experience: Experience = objective.collect(learner, batch, rng)
        weighted = experience.with_weight(objective.weigh(experience.mask, lambda total: total)).contributing()
        if (tie_rows := ObjectiveTraits.of(objective).tie_rows) is not None:
            weighted = tie_rows(learner, weighted, size, one_alone, 0)
        optimizer.zero_grad(set_to_none=True)
        objective.loss(learner, weighted, rng)[0].backward()
        torch.nn.utils.clip_grad_norm_(list(learner.adapter.trainable().values()), 1.0)
        optimizer.step()


def _batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    if count < size:
        raise ConfigError(f"{count} rows make no batch of {size}.")
    rng = stream(seed, "order")
    while True:
        order = torch.randperm(count, generator=rng).tolist()
        yield from (order[i : i + size] for i in range(0, count - size + 1, size))


def imitate(learner: Tokens, pairs: Sequence[tuple[str, str]], steps: int, lr: float = 3e-4, seed: int = 0) -> None:
    """Imitate the second text of each pair as the answer to the first."""
    data = [Prompt(asked, meta={"target": answer}) for asked, answer in pairs]
    tune(learner, SFT(target="target"), data, steps, size=64, lr=lr, seed=seed)


class Truth:
    """A reward: the share of clauses of the row's `request` that an answer has right, in [0, 1]."""

    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B answers."""
        asked = (prompt.meta["request"] for prompt in rollout.prompts)
        return Scores.of(torch.tensor([clause_share(*pair) for pair in zip(rollout.output, asked, strict=True)]))


def requests(name: str = "requests_train", count: int = 0) -> list[Prompt]:
    """Requests of a file as prompts, with the canonical caption in the column `request`."""
    return [Prompt(row["prompt"], meta={"request": row["request"]}) for row in rows(name)[: count or None]]


def on_fixed(
    learner: Any,
    objective: Any,
    prompts: Sequence[Prompt],
    updates: int,
    *,
    rows: int = 64,
    lr: float = 1e-4,
    seed: int = 0,
) -> None:
    """AdamW updates on what the learner makes of the prompts once, at the beginning: from then on it is stale."""
    optimizer = torch.optim.AdamW(learner.adapter.trainable().values(), lr=lr, weight_decay=0.0)
    rng, done = stream(seed, "fixed"), 0
    with torch.no_grad():
        experience: Experience = objective.collect(learner, list(prompts), rng)
    while done < updates:
        for part in experience.minibatches(max(1, len(experience.mask) // rows), rng):
            weighted = part.with_weight(objective.weigh(part.mask, lambda total: total))
            optimizer.zero_grad(set_to_none=True)
            objective.loss(learner, weighted.contributing(), rng)[0].backward()
            torch.nn.utils.clip_grad_norm_(list(learner.adapter.trainable().values()), 1.0)
            optimizer.step()
            done += 1
            if done == updates:
                return


def preferences(name: str = "comparisons_train", count: int = 0) -> list[Preference]:
    """Comparisons of a file as preferences; of several rejected captions the first."""
    chosen = rows(name)[: count or None]
    return [Preference(Prompt(row["prompt"]), row["chosen"], first(row["rejected"])) for row in chosen]


def first(rejected: str | list[str]) -> str:
    """The first rejected caption of a row."""
    return rejected if isinstance(rejected, str) else rejected[0]


def scored(reward: Any, prompts: Sequence[str], texts: Sequence[str], size: int = 128) -> torch.Tensor:
    """What a reward says of given texts, (N,)."""
    asked = [Prompt(prompt) for prompt in prompts]
    parts: list[Scores] = [
        reward(Rollout.of(asked[i : i + size], list(texts[i : i + size]))) for i in range(0, len(texts), size)
    ]
    return torch.cat([part.value for part in parts])


def best_of_4(reward: Any, count: int = 0) -> float:
    """How often a reward likes the right one best of four held-out captions, one edit apart; ties count 0."""
    chosen = rows("comparisons_heldout")[: count or None]
    prompts = [row["prompt"] for row in chosen for _ in range(4)]
    texts = [text for row in chosen for text in (row["chosen"], *row["rejected"])]
    table = scored(reward, prompts, texts).view(-1, 4)
    return float((table[:, :1] > table[:, 1:]).all(1).float().mean())


def means_the_same(text: str, request: str) -> bool:
    """Does a caption ask for what the canonical caption `request` asks for?"""
    try:
        return same_meaning(parse(text), parse(request))
    except CaptionError:
        return False


def clause_share(text: str, request: str) -> float:
    """The share of clauses (kinds with counts, arrangement) that a caption and a request share, in [0, 1]."""
    try:
        one, other = (_clauses(each) for each in (text, request))
    except CaptionError:
        return 0.0
    return len(one & other) / max(len(one), len(other))


def _clauses(text: str) -> set[Any]:
    request = parse(text)
    clauses: set[Any] = set()
    for group in request.groups:
        kind = group.kind
        clauses |= {("count", kind.shape, group.count), ("colour", kind.shape, kind.color)}
        clauses |= {("size", kind.shape, kind.size)}
    return clauses | {("relation", request.relation)}


def truth(tuned: Tokens, count: int = 256) -> dict[str, float]:
    """Of greedy rewrites of held-out requests: the share that mean the same, and the mean share of clauses."""
    chosen = rows("requests_heldout")[:count]
    texts = greedy(tuned, [row["prompt"] for row in chosen])
    pairs = list(zip(texts, (row["request"] for row in chosen), strict=True))
    return {
        "truth": sum(means_the_same(*pair) for pair in pairs) / len(pairs),
        "clauses": sum(clause_share(*pair) for pair in pairs) / len(pairs),
    }


def greedy(tuned: Tokens, prompts: Sequence[str]) -> list[str]:
    """The likeliest answers, token by token."""
    made: list[str] = tuned.generate([Prompt(text) for text in prompts], stream(0, "greedy")).output
    return made


def sampled(tuned: Tokens, prompts: Sequence[str], seed: int) -> list[str]:
    """One drawn answer to each prompt."""
    made: list[str] = tuned.sample([Prompt(text) for text in prompts], stream(seed, "sampled")).output
    return made


@torch.no_grad()
def margins(tuned: Tokens, pairs: Sequence[Preference]) -> torch.Tensor:
    """log p(chosen) - log p(rejected) of each pair, in nats."""
    sides = [
        tuned.observe([p.prompt for p in pairs], [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected")
    ]
    up, down = tuned.log_probs(sides, {})
    return up.sum(1) - down.sum(1)


@torch.no_grad()
def pair_accuracy(tuned: Tokens, start: Tokens, pairs: Sequence[Preference]) -> float:
    """How often the policy's log-ratio over its start favours the chosen side; a tie is half."""
    lead = margins(tuned, pairs) - margins(start, pairs)
    return float(((lead > 0).float() + 0.5 * (lead == 0).float()).mean())


def edited(tokens: Sequence[int], others: Sequence[int]) -> list[bool]:
    """Which of the tokens are not those of another text that is nearly the same."""
    marks = [True] * len(tokens)
    for block in SequenceMatcher(a=list(tokens), b=list(others), autojunk=False).get_matching_blocks():
        marks[block.a : block.a + block.size] = [False] * block.size
    return marks


def edits(tuned: Tokens, pairs: Sequence[Preference]) -> tuple[Rollout, Rollout, torch.Tensor, torch.Tensor]:
    """Both sides as rollouts, and which of their tokens (B, T) differ from the other side's."""
    sides = [
        tuned.observe([p.prompt for p in pairs], [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected")
    ]
    marks = [torch.zeros(side.trajectory["tokens"].shape, dtype=torch.bool) for side in sides]
    lists = [
        [row[mask].tolist() for row, mask in zip(side.trajectory["tokens"], side.mask, strict=True)]
        for side in sides
        if side.mask is not None
    ]
    for at, (won, lost) in enumerate(zip(*lists, strict=True)):
        marks[0][at, : len(won)] = torch.tensor(edited(won, lost))
        marks[1][at, : len(lost)] = torch.tensor(edited(lost, won))
    return sides[0], sides[1], marks[0], marks[1]


@torch.no_grad()
def drift(tuned: Tokens, start: Tokens, side: Rollout, where: torch.Tensor) -> float:
    """The mean KL(tuned ‖ start) of the next token at the places `where` (B, T) of given texts, in nats."""
    own, before = (each.step_logits(side).log_softmax(-1) for each in (tuned, start))
    return float((own.exp() * (own - before)).sum(-1)[where].mean())


def auroc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The probability that a value of the first kind exceeds one of the second; a tie is half."""
    both = torch.cat([positive, negative]).double()
    rank = both.unique(return_inverse=True)[1].double()
    counts = torch.bincount(rank.long()).double()
    middle = counts.cumsum(0) - (counts - 1) / 2
    ranks = middle[rank.long()]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


__all__ = [
    "MODEL",
    "Truth",
    "auroc",
    "best_of_4",
    "clause_share",
    "drift",
    "edits",
    "first",
    "greedy",
    "imitate",
    "margins",
    "means_the_same",
    "on_fixed",
    "pair_accuracy",
    "policy",
    "preferences",
    "requests",
    "rows",
    "sampled",
    "saved",
    "scored",
    "truth",
    "tune",
]
