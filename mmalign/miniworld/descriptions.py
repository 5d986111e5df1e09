"""The fullest caption of a scene that the grammar can write, and how far another caption says the same."""

from typing import NamedTuple

import numpy as np

from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.grammar import sample_request, sample_scene
from mmalign.miniworld.language import (
    RELATIONS,
    CaptionError,
    Clause,
    Description,
    Group,
    Request,
    holds,
    make_request,
    relation_holds,
)
from mmalign.miniworld.scenes import SHAPES, Scene, Thing

#: Things are told apart by these; the first that leaves at most two groups is taken.
_TRAITS = (("shape", "color", "size"), ("shape", "color"), ("shape", "size"), ("shape",))
_TURNED = {"right of": "left of", "below": "above"}


class Agreement(NamedTuple):
    """What a caption says about a scene, in shares of clauses."""

    right: float  # of the larger number of clauses, those that caption and fullest description share
    true: float  # of the caption's clauses, those that hold
    covered: float  # of the description's clauses, those that the caption says


def describe(scene: Scene) -> Request | None:
    """All that one caption can say of a scene; the group that reaches farthest to the left comes first.

    None where two groups cannot tell it: nothing there, things that are of no shape, three shapes.
    """
    things = sorted(scene.things, key=lambda thing: (thing.x, thing.y))
    if not things or any(thing.shape not in SHAPES for thing in things):
        return None
    for traits in _TRAITS:
        alike: dict[tuple, list[Thing]] = {}
        for thing in things:
            alike.setdefault(tuple(getattr(thing, trait) for trait in traits), []).append(thing)
        if len(alike) <= 2:
            return _request_of(list(alike.values()))
    return None


def _request_of(alike: list[list[Thing]]) -> Request | None:
    relation = None
    if len(alike) == 2 and all(len(things) == 1 for things in alike):
        first, second = (things[0] for things in alike)
        relation = next((name for name in RELATIONS if relation_holds(name, first, second)), None)
    try:
        return make_request(tuple(_group(things) for things in alike), relation)
    except CaptionError:
        return None


def _group(things: list[Thing]) -> Group:
    """What things of one shape have in common."""
    color, size = ({getattr(thing, trait) for thing in things} for trait in ("color", "size"))
    kind = Description(
        things[0].shape, color.pop() if len(color) == 1 else None, size.pop() if len(size) == 1 else None
    )
    return Group(len(things), kind)


def careless(description: Request, rng: np.random.Generator, share: float) -> Request:
    """A description as most people write captions: of its colours, sizes and relation the ``share`` is left out.

    The counts stay; where the two kinds would become one, nothing is left out.
    """
    groups = []
    for count, kind in description.groups:
        color, size = (value if rng.random() >= share else None for value in (kind.color, kind.size))
        groups.append(Group(count, kind._replace(color=color, size=size)))
    try:
        return make_request(tuple(groups), description.relation if rng.random() >= share else None)
    except CaptionError:
        return description


def agreement(caption: Request, scene: Scene, description: Request) -> Agreement:
    """How a caption compares with a scene and its fullest ``description``."""
    claims, facts = ({_straight(clause) for clause in request.clauses} for request in (caption, description))
    common = len(claims & facts)
    true = holds(scene, caption)
    return Agreement(common / max(len(claims), len(facts)), sum(true) / len(true), common / len(facts))


def _straight(clause: Clause) -> Clause:
    """A relation told from the left or from above."""
    if clause.relation not in _TURNED:
        return clause
    return clause._replace(kind=clause.other, relation=_TURNED[clause.relation], other=clause.kind)


def sample_described(rng: np.random.Generator, split: str) -> tuple[Scene, Request]:
    """A scene and its description, which names no unseen composition ("train") or at least one ("heldout")."""
    while True:
        scene = sample_scene(sample_request(rng, split), rng, seen_only=split == "train")
        description = describe(scene)
        if description is not None and bool(unseen_compositions(description)) == (split == "heldout"):
            return scene, description
