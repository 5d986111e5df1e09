"""Sampling from the grammar: requests, scenes that fulfil them, and captions that are almost right."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from mmalign.miniworld.compositions import UNSEEN_COLORED, unseen_compositions
from mmalign.miniworld.language import (
    RELATIONS,
    TASKS,
    CaptionError,
    Clause,
    Description,
    Group,
    Request,
    holds,
    make_request,
    parse,
)
from mmalign.miniworld.near_misses import near_misses
from mmalign.miniworld.scenes import COLORS, EDGE, GAP, IMAGE_SIZE, MAX_THINGS, RADIUS, SHAPES, SIZES, Scene, Thing

T = TypeVar("T")

__all__ = [
    "CaptionError",
    "Clause",
    "Description",
    "Group",
    "Request",
    "hard_negatives",
    "holds",
    "parse",
    "rearrangements",
    "restatements",
    "sample_request",
    "sample_scene",
]

#: Truth scenes keep this many pixels more than the relation itself asks, so that reading them back is not a coin toss.
_CLEAR_RELATION = 4.0
_TASK_WEIGHTS = (0.08, 0.12, 0.25, 0.10, 0.25, 0.20)
_COUNTED_PAIRS: tuple[tuple[int, ...], ...] = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3))


def sample_request(rng: np.random.Generator, split: str = "any", task: str | None = None) -> Request:
    """Draw a request.

    Args:
        rng: source of chance.
        split: "train" (no unseen composition), "heldout" (at least one) or "any".
        task: one of ``TASKS``, or None for the usual mixture.
    """
    if split not in ("train", "heldout", "any"):
        raise ValueError(f"unknown split {split!r} in sample_request: use 'train', 'heldout' or 'any'")
    chosen = task or TASKS[rng.choice(len(TASKS), p=_TASK_WEIGHTS)]
    if split == "heldout" and chosen in ("single", "two"):
        # Without a colour, a count or a relation nothing is unseen; these tasks are held out through a colour.
        chosen = {"single": "colors", "two": "binding"}[chosen]
    while True:
        request = _propose(chosen, rng)
        if request is not None and (split == "any" or bool(unseen_compositions(request)) == (split == "heldout")):
            return request


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _kind(rng: np.random.Generator, color_chance: float, size_chance: float) -> Description:
    color = _pick(rng, COLORS) if rng.random() < color_chance else None
    size = _pick(rng, SIZES) if rng.random() < size_chance else None
    return Description(_pick(rng, SHAPES), color, size)


def _propose(task: str, rng: np.random.Generator) -> Request | None:
    """One attempt at a request of a task; None when the draw contradicts itself or belongs to another task."""
    relation = None
    if task == "single":
        groups = [Group(1, _kind(rng, 0.0, 0.3))]
    elif task == "colors":
        groups = [Group(1, _kind(rng, 1.0, 0.35))]
    elif task == "two":
        groups = [Group(1, _kind(rng, 0.0, 0.0)) for _ in range(2)]
    elif task == "counting":
        counts = _pick(rng, _COUNTED_PAIRS) if rng.random() < 0.5 else (int(rng.integers(2, MAX_THINGS + 1)),)
        groups = [Group(count, _kind(rng, 0.7, 0.2)) for count in counts]
    else:
        color_chance = 0.75 if task == "position" else 1.0
        groups = [Group(1, _kind(rng, color_chance, 0.2)) for _ in range(2)]
        relation = _pick(rng, RELATIONS) if task == "position" else None
    try:
        request = make_request(tuple(groups), relation)
    except CaptionError:
        return None
    return request if request.task == task else None


def sample_scene(request: Request, rng: np.random.Generator, seen_only: bool = False) -> Scene:
    """Draw a scene of which the request is true, with clear gaps between things.

    Args:
        request: what the scene must show, and nothing else.
        rng: decides everything that the request leaves open.
        seen_only: leave out held-out pairs of shape and colour where the request leaves the colour open.
    """
    for _ in range(1000):
        described = [_complete(kind, rng, seen_only) for count, kind in request.groups for _ in range(count)]
        places = _places([RADIUS[size] for _, _, size in described], rng)
        if places is None:
            continue
        scene = Scene(tuple(Thing(*what, *place) for what, place in zip(described, places, strict=True)))
        if _clearly_holds(scene, request):
            return scene
    raise RuntimeError(f"no scene found for {request.text!r} in 1000 attempts: this is a fault of the grammar")


def _complete(kind: Description, rng: np.random.Generator, seen_only: bool) -> tuple[str, str, str]:
    colors = [c for c in COLORS if not (seen_only and (kind.shape, c) in UNSEEN_COLORED)]
    return kind.shape, kind.color or _pick(rng, tuple(colors)), kind.size or _pick(rng, SIZES)


def _places(radii: list[float], rng: np.random.Generator) -> list[tuple[float, float]] | None:
    """Centres without overlap, on half pixels, or None when the attempts ran out."""
    placed: list[tuple[float, float]] = []
    for index, radius in enumerate(radii):
        low, high = radius + EDGE, IMAGE_SIZE - radius - EDGE
        for x, y in np.round(rng.uniform(low, high, size=(24, 2)) * 2) / 2:
            if all(np.hypot(x - a, y - b) >= radius + radii[k] + GAP for k, (a, b) in enumerate(placed)):
                placed.append((float(x), float(y)))
                break
        if len(placed) <= index:
            return None
    return placed


def _clearly_holds(scene: Scene, request: Request) -> bool:
    if request.relation is None:
        return all(holds(scene, request))
    first, second = scene.things
    dx, dy = abs(first.x - second.x), abs(first.y - second.y)
    along, across = (dx, dy) if request.relation in ("left of", "right of") else (dy, dx)
    return along - across >= _CLEAR_RELATION and all(holds(scene, request))


def hard_negatives(
    request: Request, n: int, rng: np.random.Generator, scene: Scene | None = None, split: str = "any"
) -> list[Request]:
    """Captions that differ in one attribute, count or relation and are false where the request is true.

    Single changes come first in random order; when they run out, captions with two or more changes follow.

    Args:
        request: the true caption.
        n: how many distinct captions to return.
        rng: source of chance.
        scene: the scene that they must be false of; without one, they are false of several scenes of the request.
        split: "train" leaves out captions with unseen compositions.
    """
    truths = [scene] if scene is not None else [sample_scene(request, rng) for _ in range(4)]

    def wanted(edit: Request) -> bool:
        return _allowed(edit, split) and not any(all(holds(truth, edit)) for truth in truths)

    return near_misses(request, n, rng, partial(_edits, may_add=scene is not None), wanted)


def restatements(request: Request, scene: Scene, split: str = "any") -> list[Request]:
    """Other true captions of a scene, each stating one attribute or relation more than ``request``."""
    edits = [edit for edit in _edits(request, may_add=True) if edit.text != request.text and all(holds(scene, edit))]
    return [edit for edit in edits if _allowed(edit, split)]


def rearrangements(request: Request, scene: Scene, split: str = "any") -> list[Request]:
    """False captions that name the same things: attributes or counts exchanged between the two, or another relation."""
    if len(request.groups) < 2:
        return []
    first, second = request.groups
    pairs = [(first._replace(count=second.count), second._replace(count=first.count))]
    for field in ("shape", "color", "size"):
        exchanged = (getattr(second.kind, field), getattr(first.kind, field))
        kinds = [group.kind._replace(**{field: v}) for group, v in zip((first, second), exchanged, strict=True)]
        pairs.append((first._replace(kind=kinds[0]), second._replace(kind=kinds[1])))
    edits = [edit for pair in pairs for edit in _valid(pair, request.relation)]
    if request.relation is not None:
        edits += [edit for relation in RELATIONS for edit in _valid((first, second), relation)]
    allowed = [edit for edit in edits if _allowed(edit, split)]
    return [edit for edit in dict.fromkeys(allowed) if not all(holds(scene, edit))]


def _allowed(request: Request, split: str) -> bool:
    return split != "train" or not unseen_compositions(request)


def _edits(request: Request, may_add: bool) -> Iterator[Request]:
    """All requests one change away; with ``may_add`` also those that state one attribute or relation more."""
    for index, (count, kind) in enumerate(request.groups):
        changed = [Group(other, kind) for other in range(1, MAX_THINGS + 1) if other != count]
        for field, options in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
            if getattr(kind, field) is not None or may_add:
                changed += [Group(count, kind._replace(**{field: option})) for option in options]
        for group in changed:
            yield from _valid((*request.groups[:index], group, *request.groups[index + 1 :]), request.relation)
    if len(request.groups) == 2:
        (first_count, first), (second_count, second) = request.groups
        exchanged = (first._replace(color=second.color), second._replace(color=first.color))
        yield from _valid((Group(first_count, exchanged[0]), Group(second_count, exchanged[1])), request.relation)
    if request.relation is not None or may_add:
        for relation in RELATIONS:
            yield from _valid(request.groups, relation)


def _valid(groups: tuple[Group, ...], relation: str | None) -> Iterator[Request]:
    try:
        yield make_request(groups, relation)
    except CaptionError:
        return
