"""What an image embedding must hold for captions to be told apart: yes/no answers, and where each kind of thing stands.

Answers that would give away a held-out composition (a shape in a colour that training never shows) are left out; their
parts are asked separately. Arrangements are not asked pair by pair: places of shapes and of colours imply them.
"""

from functools import lru_cache
from itertools import product

import numpy as np

from mmalign.miniworld.compositions import UNSEEN_COLORED
from mmalign.miniworld.language import Request
from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES, Scene, Thing

#: Kinds whose places are asked, and the pixels that count as 1.
_PLACED = (*SHAPES, *COLORS)
_UNIT = 16.0


@lru_cache(maxsize=1)
def _questions() -> dict[tuple, int]:
    """Every question and its place: numbers of a kind, and kinds present."""
    numbers = [("number", value, n) for value in ("thing", *SHAPES, *COLORS, *SIZES) for n in range(1, MAX_THINGS + 1)]
    present = [pair for pair in product(SHAPES, COLORS) if pair not in UNSEEN_COLORED]
    present += [*product(SHAPES, SIZES), *product(COLORS, SIZES)]
    return {question: place for place, question in enumerate([*numbers, *present])}


def fact_count() -> int:
    """How many questions there are."""
    return len(_questions())


def _traits(thing: Thing) -> tuple[str, str, str]:
    return thing.shape, thing.color, thing.size


def scene_facts(scene: Scene) -> np.ndarray:
    """``(fact_count(),)`` float32 of 0 and 1."""
    traits = [_traits(thing) for thing in scene.things]
    values = [value for row in traits for value in row] + ["thing"] * len(traits)
    facts: list[tuple] = [("number", value, values.count(value)) for value in set(values)]
    for shape, color, size in traits:
        facts += [(shape, color), (shape, size), (color, size)]
    answers = np.zeros(fact_count(), dtype=np.float32)
    places = _questions()
    answers[[places[fact] for fact in facts if fact in places]] = 1
    return answers


def place_count() -> int:
    """How many numbers ``scene_places`` gives."""
    return 2 * len(_PLACED)


def scene_places(scene: Scene) -> np.ndarray:
    """``(place_count(),)`` float32: x and y of all things of a shape or a colour, from the middle of all things.

    In units of 16 pixels, 0 for kinds that are not there. That a stands above b is then a difference of two of them,
    which the scalar product with a caption's embedding can take.
    """
    centres = np.array([(thing.x, thing.y) for thing in scene.things], dtype=np.float32)
    offsets = (centres - centres.mean(axis=0)) / _UNIT
    places = np.zeros((len(_PLACED), 2), dtype=np.float32)
    for thing, offset in zip(scene.things, offsets, strict=True):
        places[[_PLACED.index(thing.shape), _PLACED.index(thing.color)]] += offset
    return places.ravel()


def asked_places(request: Request) -> np.ndarray:
    """``(place_count(),)`` float32: the side of the middle on which a request's relation puts its kinds, as 1 and -1.

    What ``scene_places`` measures, as far as a caption tells it; 0 for all that it does not name, or without relation.
    """
    places = np.zeros((len(_PLACED), 2), dtype=np.float32)
    if request.relation is not None:
        axis = 0 if request.relation in ("left of", "right of") else 1
        side = -1.0 if request.relation in ("left of", "above") else 1.0
        for group, sign in zip(request.groups, (side, -side), strict=True):
            for value in (group.kind.shape, group.kind.color):
                if value is not None:
                    places[_PLACED.index(value), axis] += sign
    return places.ravel()
