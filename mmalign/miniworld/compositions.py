"""Which compositions are kept out of training: the held-out split asks for things never seen together."""

from mmalign.miniworld.language import Clause, Request
from mmalign.miniworld.scenes import SHAPES, Scene

#: Every shape and every colour is seen in training, but never these together.
UNSEEN_COLORED = frozenset(
    {
        ("circle", "yellow"),
        ("square", "purple"),
        ("triangle", "red"),
        ("star", "blue"),
        ("cross", "green"),
        ("circle", "black"),
    }
)
#: Numbers of one shape never asked for in training.
UNSEEN_COUNTED = frozenset({(2, "triangle"), (3, "circle"), (4, "star"), (3, "cross")})


def arrangement(first: str, relation: str, second: str) -> tuple[str, str, str]:
    """Name an arrangement of two shapes the same way from either side: "a left of b" is "b right of a"."""
    axis = "beside" if relation in ("left of", "right of") else "above"
    return (second, axis, first) if relation in ("right of", "below") else (first, axis, second)


#: About one in five ordered arrangements, spread so that every shape is seen on every side of most others.
UNSEEN_ARRANGED = frozenset(
    (first, axis, second)
    for i, first in enumerate(SHAPES)
    for j, second in enumerate(SHAPES)
    for k, axis in enumerate(("beside", "above"))
    if (i + 2 * j + 2 * k) % len(SHAPES) == 1
)


def unseen_compositions(request: Request) -> list[tuple]:
    """The parts of a request that training never shows; empty for a request of the train split."""
    unseen: list[tuple] = []
    for count, kind in request.groups:
        if (kind.shape, kind.color) in UNSEEN_COLORED:
            unseen.append((kind.shape, kind.color))
        if (count, kind.shape) in UNSEEN_COUNTED:
            unseen.append((count, kind.shape))
    if request.relation is not None:
        shapes = (request.groups[0].kind.shape, request.groups[1].kind.shape)
        arranged = arrangement(shapes[0], request.relation, shapes[1])
        if arranged in UNSEEN_ARRANGED:
            unseen.append(arranged)
    return unseen


def unseen_clause(clause: Clause) -> bool:
    """Whether one clause names a composition that training never shows."""
    kinds = [kind for kind in (clause.kind, clause.other) if kind is not None]
    if any((kind.shape, kind.color) in UNSEEN_COLORED for kind in kinds):
        return True
    if clause.relation is not None and len(kinds) == 2:
        return arrangement(kinds[0].shape, clause.relation, kinds[1].shape) in UNSEEN_ARRANGED
    return bool(kinds) and (clause.count, kinds[0].shape) in UNSEEN_COUNTED


def shows_unseen_color(scene: Scene) -> bool:
    """Whether a scene contains a held-out pair of shape and colour."""
    return any((thing.shape, thing.color) in UNSEEN_COLORED for thing in scene.things)
