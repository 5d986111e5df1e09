"""What can be said of a scene, as yes/no answers: what an image embedding must hold for captions to be told apart.

Answers that would give away a held-out composition (a shape in a colour, or an arrangement of two shapes, that training
never shows) are left out; their parts are asked separately.
"""

from functools import lru_cache
from itertools import product

import numpy as np

from mmalign.miniworld.compositions import UNSEEN_ARRANGED, UNSEEN_COLORED
from mmalign.miniworld.language import relation_holds
from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES, Scene, Thing

_AXES = {"beside": "left of", "above": "above"}


@lru_cache(maxsize=1)
def _questions() -> dict[tuple, int]:
    """Every question and its place: numbers of a kind, kinds present, and who stands left of or above whom."""
    numbers = [("number", value, n) for value in ("thing", *SHAPES, *COLORS, *SIZES) for n in range(1, MAX_THINGS + 1)]
    present = [pair for pair in product(SHAPES, COLORS) if pair not in UNSEEN_COLORED]
    present += [*product(SHAPES, SIZES), *product(COLORS, SIZES)]
    values = (*SHAPES, *COLORS)
    arranged = [(a, axis, b) for a, axis, b in product(values, _AXES, values) if (a, axis, b) not in UNSEEN_ARRANGED]
    return {question: place for place, question in enumerate([*numbers, *present, *arranged])}


def fact_count() -> int:
    """How many questions there are."""
    return len(_questions())


def _traits(thing: Thing) -> tuple[str, str, str]:
    return thing.shape, thing.color, thing.size


def scene_facts(scene: Scene) -> np.ndarray:
    """``(fact_count(),)`` float32 of 0 and 1. Arrangements are asked of scenes of two things, as captions do."""
    traits = [_traits(thing) for thing in scene.things]
    values = [value for row in traits for value in row] + ["thing"] * len(traits)
    facts: list[tuple] = [("number", value, values.count(value)) for value in set(values)]
    for shape, color, size in traits:
        facts += [(shape, color), (shape, size), (color, size)]
    if len(scene.things) == 2:
        for (one, a), (two, b) in (
            ((scene.things[0], traits[0]), (scene.things[1], traits[1])),
            ((scene.things[1], traits[1]), (scene.things[0], traits[0])),
        ):
            for axis, relation in _AXES.items():
                if relation_holds(relation, one, two):
                    facts += [(p, axis, q) for p in a[:2] for q in b[:2]]
    answers = np.zeros(fact_count(), dtype=np.float32)
    places = _questions()
    answers[[places[fact] for fact in facts if fact in places]] = 1
    return answers
