"""Prompts that begin alike, cut into what they share and what is their own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from jaxtyping import Bool, Int

from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor


@dataclass
class Cut:
    """N prompts as beginnings and what follows them.

    `rows` (N,) is each prompt's place in `prefixes`; `tokens` (N, S + 1) the rest of its ids, right-padded, with one
    place more: a `TokenAdapter` gives the state before each step, and the one wanted stands after the last, at
    `lengths` (N,).
    """

    prefixes: list[Inputs]
    rows: Int[Tensor, " N"]
    tokens: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    lengths: Int[Tensor, " N"]


def behind_prefixes(inputs: Sequence[Inputs], alike: Sequence[bytes], placed: Collection[int]) -> Cut:
    """Cut prompts so that those which are alike share a beginning; each keeps at least its last token to itself.

    Args:
        inputs: of each prompt, unpadded; tensors of one axis run along its tokens.
        alike: of each prompt, equal for those with one picture, or with none and one text to begin with.
        placed: ids that stand for a picture, which stay in the beginning.
    """
    ids = [prompt["input_ids"].tolist() for prompt in inputs]
    groups: dict[bytes, list[int]] = {}
    for n, key in enumerate(alike):
        groups.setdefault(key, []).append(n)
    prefixes: list[Inputs] = []
    rows, rest = [0] * len(inputs), [[0]] * len(inputs)
    for members in groups.values():
        length = _common([ids[n] for n in members])
        whole = length > 0 and not any(i in placed for n in members for i in ids[n][length:])
        for group, cut in [(members, length)] if whole else [([n], len(ids[n]) - 1) for n in members]:
            for n in group:
                rows[n], rest[n] = len(prefixes), ids[n][cut:]
            first = inputs[group[0]]
            prefixes.append({name: value[:cut] if value.dim() == 1 else value for name, value in first.items()})
    width = max(map(len, rest)) + 1
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rest])
    lengths = torch.tensor([len(row) for row in rest])
    return Cut(prefixes, torch.tensor(rows), tokens, torch.arange(width) <= lengths[:, None], lengths)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many ids all rows begin with, less than the shortest row."""
    shortest = min(map(len, rows)) - 1
    return sum(1 for _ in takewhile(lambda at: len({row[at] for row in rows}) == 1, range(shortest)))
