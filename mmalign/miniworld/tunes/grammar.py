"""Sampling from the grammar: requests, tunes that fulfil them, and captions that are almost right."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np

from mmalign.miniworld.near_misses import near_misses
from mmalign.miniworld.tunes.compositions import plays_unseen, unseen_compositions
from mmalign.miniworld.tunes.language import VALUES, CaptionError, Clause, Request, holds, make_request, parse
from mmalign.miniworld.tunes.tune import ATTRIBUTES, Tune

T = TypeVar("T")

__all__ = [
    "CaptionError",
    "Clause",
    "Request",
    "all_requests",
    "hard_negatives",
    "holds",
    "parse",
    "restatements",
    "sample_request",
    "sample_tune",
]

#: How often a caption states each attribute; the texture always.
_STATED = {"tempo": 0.6, "rhythm": 0.45, "direction": 0.6, "register": 0.6, "timbre": 0.85, "texture": 1.0}


def sample_request(rng: np.random.Generator, split: str = "any") -> Request:
    """Draw a request of two clauses or more.

    Args:
        rng: source of chance.
        split: "train" (no unseen composition), "heldout" (at least one) or "any".
    """
    if split not in ("train", "heldout", "any"):
        raise ValueError(f"unknown split {split!r} in sample_request: use 'train', 'heldout' or 'any'")
    while True:
        stated = {name: _pick(rng, VALUES[name]) for name, chance in _STATED.items() if rng.random() < chance}
        request = make_request(stated)
        if len(stated) > 1 and (split == "any" or bool(unseen_compositions(request)) == (split == "heldout")):
            return request


def all_requests() -> Iterator[Request]:
    """Every request there is."""
    for values in product(*(values if name == "texture" else (None, *values) for name, values in VALUES.items())):
        yield make_request({name: value for name, value in zip(VALUES, values, strict=True) if value})


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def sample_tune(request: Request, rng: np.random.Generator, seen_only: bool = False) -> Tune:
    """Draw a tune of which the request is true.

    Args:
        request: what the tune must be.
        rng: decides everything that the request leaves open.
        seen_only: leave out held-out compositions, unless the request itself names one.
    """
    anything = not seen_only or bool(unseen_compositions(request))
    for _ in range(1000):
        drawn = Tune(**{name: _pick(rng, values) for name, values in ATTRIBUTES.items()})
        exact = {name: value for name, value in request.clauses if value in ATTRIBUTES[name]}
        tune = drawn._replace(**exact)
        if all(holds(tune, request)) and (anything or not plays_unseen(tune)):
            return tune
    raise RuntimeError(f"no tune found for {request.text!r} in 1000 attempts: this is a fault of the grammar")


def hard_negatives(
    request: Request, n: int, rng: np.random.Generator, tune: Tune | None = None, split: str = "any"
) -> list[Request]:
    """Captions that differ in one attribute and are false where the request is true.

    Single changes come first in random order; when they run out, captions with two or more changes follow.

    Args:
        request: the true caption.
        n: how many distinct captions to return; fewer where there are no more.
        rng: source of chance.
        tune: the tune that they must be false of, also by an attribute that the request leaves open; without one, they
            contradict the request itself.
        split: "train" leaves out captions with unseen compositions.
    """

    def wanted(edit: Request) -> bool:
        false = not all(holds(tune, edit)) if tune else _contradict(request, edit)
        return false and _allowed(edit, split)

    return near_misses(request, n, rng, partial(_edits, may_add=tune is not None), wanted)


def restatements(request: Request, tune: Tune, split: str = "any") -> list[Request]:
    """Other true captions of a tune, each stating one attribute more, or one more exactly, than ``request``."""
    edits = [edit for edit in _edits(request, may_add=True) if edit.text != request.text and all(holds(tune, edit))]
    return [edit for edit in edits if _allowed(edit, split)]


def _allowed(request: Request, split: str) -> bool:
    return split != "train" or not unseen_compositions(request)


def _edits(request: Request, may_add: bool) -> Iterator[Request]:
    """All requests with one attribute changed; with ``may_add`` also those that state one more."""
    for name, values in VALUES.items():
        if name in request.stated or may_add:
            yield from (make_request({**request.stated, name: value}) for value in values)


def _contradict(one: Request, other: Request) -> bool:
    """Whether no tune fulfils both."""
    shared = [(value, other.stated[name]) for name, value in one.clauses if name in other.stated]
    return any(a != b and not ("chords" in (a, b) and a.endswith("chords") and b.endswith("chords")) for a, b in shared)
