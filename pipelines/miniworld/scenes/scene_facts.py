"""What an image embedding must hold for captions to be told apart: yes/no answers, and a layout.

The layout says how many things of each trait there are, which traits go together and where each kind stands, all in
numbers that add up over things. Compositions are never asked one by one, as unseen ones then could not be answered:
places of shapes and of colours imply every arrangement, and which shape has which colour is a product of a short vector
per shape and one per colour, of which there are fewer numbers than pairs (tensor product representations, Smolensky
1990).
"""

from functools import cache, lru_cache
from itertools import combinations, product

import numpy as np

from mmalign.miniworld.language import Request
from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES, Scene, Thing

#: Kinds whose places are asked, and the pixels that count as 1.
_PLACED = (*SHAPES, *COLORS)
_UNIT = 16.0


#: What stands for a shape or a colour in products; short, so that seen pairs determine what unseen ones are.
_SHAPE_WIDTH, _COLOR_WIDTH = 3, 4


@lru_cache(maxsize=1)
def _questions() -> dict[tuple, int]:
    """Every question and its place: numbers of a kind, and kinds present."""
    numbers = [("number", value, n) for value in ("thing", *SHAPES, *COLORS, *SIZES) for n in range(1, MAX_THINGS + 1)]
    present = [*product(SHAPES, SIZES), *product(COLORS, SIZES)]
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
        facts += [(shape, size), (color, size)]
    answers = np.zeros(fact_count(), dtype=np.float32)
    places = _questions()
    answers[[places[fact] for fact in facts if fact in places]] = 1
    return answers


@lru_cache(maxsize=1)
def _vectors() -> dict[str, np.ndarray]:
    """A unit vector for each shape and each colour, the same in every process; -1 or 1 for sizes."""
    rng = np.random.default_rng(0)
    vectors: dict[str, np.ndarray] = {}
    for values, width in ((SHAPES, _SHAPE_WIDTH), (COLORS, _COLOR_WIDTH)):
        drawn = rng.standard_normal((len(values), width))
        vectors |= dict(zip(values, drawn / np.linalg.norm(drawn, axis=1, keepdims=True), strict=True))
    return vectors | {SIZES[0]: np.array([-1.0]), SIZES[1]: np.array([1.0])}


@cache
def _traits_code(shape: str, color: str | None, size: str | None) -> np.ndarray:
    """Which traits there are, and the products of each two that are told; 0 for what is not told."""
    present = [float(value in (shape, color, size)) for value in (*SHAPES, *COLORS, *SIZES)]
    sized = zip((shape, color, size), (_SHAPE_WIDTH, _COLOR_WIDTH, 1), strict=True)
    pairs = []
    for (one, width), (other, depth) in combinations(sized, 2):
        if one is None or other is None:
            pairs.append(np.zeros(width * depth))
        else:
            pairs.append(np.outer(_vectors()[one], _vectors()[other]).ravel())
    return np.concatenate([present, *pairs]).astype(np.float32)


def layout_size() -> int:
    """How many numbers ``scene_layout`` gives."""
    return 2 * len(_PLACED) + len(_traits_code(SHAPES[0], None, None))


def scene_layout(scene: Scene) -> np.ndarray:
    """``(layout_size(),)`` float32: where the things of each shape and colour stand, how many, and of which traits.

    Places are x and y from the middle of all things in units of 16 pixels, 0 for kinds that are not there. That a
    stands above b is then a difference of two of them, which the scalar product with a caption's embedding can take.
    """
    centres = np.array([(thing.x, thing.y) for thing in scene.things], dtype=np.float32)
    offsets = (centres - centres.mean(axis=0)) / _UNIT
    places = np.zeros((len(_PLACED), 2), dtype=np.float32)
    for thing, offset in zip(scene.things, offsets, strict=True):
        places[[_PLACED.index(thing.shape), _PLACED.index(thing.color)]] += offset
    kinds = sum(_traits_code(*_traits(thing)) for thing in scene.things)
    return np.concatenate([places.ravel(), kinds])


def asked_layout(request: Request) -> np.ndarray:
    """``(layout_size(),)`` float32: what ``scene_layout`` measures, as far as a caption tells it.

    Its relation puts one kind on one side of the middle and the other on the other, as 1 and -1; 0 for all that it does
    not name, or without relation.
    """
    places = np.zeros((len(_PLACED), 2), dtype=np.float32)
    if request.relation is not None:
        axis = 0 if request.relation in ("left of", "right of") else 1
        side = -1.0 if request.relation in ("left of", "above") else 1.0
        for group, sign in zip(request.groups, (side, -side), strict=True):
            for value in (group.kind.shape, group.kind.color):
                if value is not None:
                    places[_PLACED.index(value), axis] += sign
    kinds = sum(group.count * _traits_code(*group.kind) for group in request.groups)
    return np.concatenate([places.ravel(), kinds])
