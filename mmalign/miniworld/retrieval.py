"""Questions over passages whose right answer, sources and answerability are known: a bench of rewards of retrieval.

The four kinds of RAG-RewardBench (2412.13746) over captions of scenes:

| subset | passages | better | worse |
|---|---|---|---|
| multi_hop | a room holds a picture, which shows things | what the room's picture shows, both cited | nearly that |
| citation | pictures with what they show | the answer with its passage | the answer with another passage |
| abstain | none of the picture asked for | that it is unknown | what another picture shows |
| conflict | an older one, and one that corrects it | what the correction says | what the older one said |
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmalign.miniworld.grammar import hard_negatives, sample_request

SUBSETS = ("multi_hop", "citation", "abstain", "conflict")
UNKNOWN = "unknown"
_TASK = "Answer in <answer></answer> from the passages alone, then cite what you used as [1]; say unknown if none does."


def retrieval(count: int, split: str = "train", seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of `prompt`, `chosen`, `rejected`, `subset`, `answer`, `supporting` (numbers from 1) and `answerable`.

    Args:
        count: rows; the four subsets in turn.
        split: of the compositions, "train", "heldout" or "any".
        seed: of everything drawn.
    """
    rng = np.random.default_rng([43, seed])
    for number in range(count):
        subset = SUBSETS[number % len(SUBSETS)]
        passages, question, right, wrong = _case(subset, split, rng)
        order = [int(i) for i in rng.permutation(len(passages))]
        place = {old: new + 1 for new, old in enumerate(order)}
        listed = "\n".join(f"[{place[old]}] {passages[old]}" for old in order)
        sources = sorted(place[i] for i in right[1])
        yield {
            "prompt": f"{listed}\n\n{question} {_TASK}",
            "chosen": _answer(right[0], sources),
            "rejected": _answer(wrong[0], sorted(place[i] for i in wrong[1])),
            "subset": subset,
            "answer": right[0],
            "supporting": sources,
            "answerable": right[0] != UNKNOWN,
        }


Said = tuple[str, list[int]]  # an answer, and the passages that it cites


def _case(subset: str, split: str, rng: np.random.Generator) -> tuple[list[str], str, Said, Said]:
    """Passages, the question, and the right and the wrong answer with their places among the passages."""
    names = [int(n) for n in rng.choice(np.arange(10, 100), 4, replace=False)]
    requests = [sample_request(rng, split) for _ in names]
    shown = [request.text for request in requests]
    passages = [f"Picture {name} shows {text}." for name, text in zip(names, shown, strict=True)]
    ask = f"What does picture {names[0]} show?"
    near = hard_negatives(requests[0], 1, rng, split="train" if split == "train" else "any")[0].text
    if subset == "citation":
        return passages, ask, (shown[0], [0]), (shown[0], [int(rng.integers(1, 4))])
    if subset == "abstain":
        other = int(rng.integers(0, 3))
        return passages[1:], ask, (UNKNOWN, []), (shown[1 + other], [other])
    if subset == "conflict":
        later = f"Correction: picture {names[0]} shows {near}, not {shown[0]}."
        return [*passages[:3], later], ask, (near, [3]), (shown[0], [0])
    rooms = [f"Room {letter} holds picture {name}." for letter, name in zip("AB", names, strict=False)]
    question = "What does the picture in room A show?"
    return [*passages[:2], *rooms], question, (shown[0], [0, 2]), (near, [0, 2])


def _answer(text: str, sources: list[int]) -> str:
    return f"<answer>{text}</answer>" + "".join(f" [{number}]" for number in sources)
