"""Prompts forwarded once and continued by many rows: left padding, positions, and the cache of keys and values.

An adapter gives `run(ids, mask, positions, cache)`, one call of its network: ids (B, t) after whatever the cache holds,
mask (B, everything so far), positions (B, t) counted without padding → hidden states (B, t, D) and the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import DataError
from mmalign.core.tensor import Tensor
from mmalign.loading.foreign import Cache

Run = Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Cache]]


@dataclass(kw_only=True)
class Prefix:
    """Forwarded left-padded prompts: their last hidden state, the cache behind it, and where each goes on."""

    last: Float[Tensor, "B D"]
    cache: Cache
    mask: Bool[Tensor, "B L"]
    following: Int[Tensor, " B"]  # the position of the next token

    def take_rows_(self, rows: Int[Tensor, " K"]) -> Prefix:
        """Return the prefix of these rows, with gradient; the cache is changed in place."""
        if len(rows) == len(self.last) and bool((rows == torch.arange(len(rows), device=rows.device)).all()):
            return self
        self.cache.batch_select_indices(rows)
        return Prefix(last=self.last[rows], cache=self.cache, mask=self.mask[rows], following=self.following[rows])


def forward_prompts(run: Run, ids: Int[Tensor, "U L"], mask: Bool[Tensor, "U L"]) -> Prefix:
    """Forward left-padded prompts once; a cache is made."""
    hidden, cache = run(ids, mask, positions(mask), None)
    return Prefix(last=hidden[:, -1], cache=cache, mask=mask, following=mask.sum(1))


def positions(mask: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Count 0, 1, 2, … over what is not padding: a row then does not know how far it was padded."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def continued(
    run: Run, prefix: Prefix, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """Return the hidden state before each step of the completions, behind their prompts' cache; with gradient."""
    first = prefix.last[:, None]
    if tokens.shape[1] == 1:
        return first
    at = prefix.following[:, None] + positions(mask[:, :-1])  # padding, which nothing reads, stays within the context
    hidden, _ = run(tokens[:, :-1], torch.cat([prefix.mask, mask[:, :-1]], 1), at, prefix.cache)
    return torch.cat([first, hidden], 1)


def whole(
    run: Run, ids: Int[Tensor, "B L"], seen: Bool[Tensor, "B L"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """Return what `continued` does from one forward of prompt and completion, for networks that keep no cache."""
    everything = torch.cat([seen, mask[:, :-1]], 1)
    hidden, _ = run(torch.cat([ids, tokens[:, :-1]], 1), everything, positions(everything), None)
    return hidden[:, ids.shape[1] - 1 :]


class Steps:
    """`Decoding` of text: a cache that grows by one token a step."""

    def __init__(self, run: Run, prefix: Prefix) -> None:
        self._run, self._prefix = run, prefix

    @property
    def features(self) -> Float[Tensor, "A D"]:
        """The hidden state before the next step."""
        return self._prefix.last

    def advance(self, tokens: Int[Tensor, " A"]) -> None:
        """Append one token to every row."""
        prefix = self._prefix
        mask = torch.cat([prefix.mask, prefix.mask.new_ones(len(tokens), 1)], 1)
        hidden, cache = self._run(tokens[:, None], mask, prefix.following[:, None], prefix.cache)
        self._prefix = Prefix(last=hidden[:, -1], cache=cache, mask=mask, following=prefix.following + 1)

    def keep(self, rows: Int[Tensor, " K"]) -> None:
        """Go on with these rows only."""
        self._prefix = self._prefix.take_rows_(rows)


def check_room(lengths: Sequence[int], steps: Sequence[int], context: int | None) -> None:
    """Raise DataError where a prompt and as many more tokens as `steps` says are longer than the model's context."""
    longest, most = max(zip(lengths, steps, strict=True), key=sum)
    if context is not None and longest + most > context:
        raise DataError(
            f"a prompt of {longest} tokens and a completion of {most} are longer than the model's context of "
            f"{context}; shorten the prompt, or lower the policy's max_new_tokens."
        )
