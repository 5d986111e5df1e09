"""Captions of scenes: what they mean exactly, how they are written and read, and when they are true."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES, Scene, Thing

RELATIONS = ("left of", "right of", "above", "below")
TASKS = ("single", "two", "counting", "colors", "position", "binding")
COUNT_WORDS = ("a", "two", "three", "four")
PLURALS = {shape: shape + ("es" if shape.endswith("ss") else "s") for shape in SHAPES}
#: A relation holds when the centres differ by this many pixels along its axis, and by no more along the other.
RELATION_MARGIN = 4.0

_GROUP = re.compile(
    rf"(?P<count>{'|'.join(COUNT_WORDS)}) (?:(?P<size>{'|'.join(SIZES)}) )?(?:(?P<color>{'|'.join(COLORS)}) )?"
    rf"(?P<shape>{'|'.join(sorted((*SHAPES, *PLURALS.values()), key=len, reverse=True))})"
)
_JOIN = re.compile(rf" (and|{'|'.join(RELATIONS)}) ")
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


class CaptionError(ValueError):
    """A text that is not a caption of this world's grammar."""


class Description(NamedTuple):
    """A kind of thing: a shape with, where stated, a colour and a size."""

    shape: str
    color: str | None = None
    size: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether a thing is of this kind."""
        return (
            thing.shape == self.shape
            and (self.color is None or thing.color == self.color)
            and (self.size is None or thing.size == self.size)
        )

    def overlaps(self, other: "Description") -> bool:
        """Whether some thing could be of both kinds."""
        return all(a == b or a is None or b is None for a, b in zip(self, other, strict=True))


class Group(NamedTuple):
    """A number of things of one kind, as in "two red circles"."""

    count: int  # type: ignore[assignment]  # the field hides tuple.count, which nothing here calls
    kind: Description


class Clause(NamedTuple):
    """One checkable part of a request.

    ``test`` is "count" (exactly ``count`` things of ``kind``), "total" (exactly ``count`` things altogether) or
    "relation" (the one thing of ``kind`` stands in ``relation`` to the one thing of ``other``).
    """

    test: str
    count: int = 1  # type: ignore[assignment]  # as in Group
    kind: Description | None = None
    relation: str | None = None
    other: Description | None = None


@dataclass(frozen=True)
class Request:
    """What a caption asks for."""

    text: str
    task: str
    groups: tuple[Group, ...]
    relation: str | None
    clauses: tuple[Clause, ...]


def make_request(groups: tuple[Group, ...], relation: str | None = None) -> Request:
    """Build the request for one or two groups, optionally related.

    Raises:
        CaptionError: when no scene could fulfil it, or when the two kinds could be the same thing.
    """
    total = sum(group.count for group in groups)
    if not 1 <= len(groups) <= 2 or any(group.count < 1 for group in groups) or total > MAX_THINGS:
        raise CaptionError(f"a caption names one or two groups of 1 to {MAX_THINGS} things altogether, got {groups}")
    if len(groups) == 2 and groups[0].kind.overlaps(groups[1].kind):
        kinds = " and ".join(repr(_write(group)) for group in groups)
        raise CaptionError(f"one thing could be both of {kinds}: state a contrast")
    if relation is not None and (len(groups) != 2 or total != 2):
        raise CaptionError(f"{relation!r} relates exactly two single things, got {groups}")
    return _assemble(groups, relation)


@lru_cache(maxsize=100_000)
def _assemble(groups: tuple[Group, ...], relation: str | None) -> Request:
    total = sum(group.count for group in groups)
    joiner = f" {relation or 'and'} "
    clauses = [Clause("count", group.count, group.kind) for group in groups]
    clauses.append(Clause("total", total))
    if relation is not None:
        clauses.append(Clause("relation", 1, groups[0].kind, relation, groups[1].kind))
    return Request(joiner.join(map(_write, groups)), _task(groups, relation), groups, relation, tuple(clauses))


def _write(group: Group) -> str:
    noun = group.kind.shape if group.count == 1 else PLURALS[group.kind.shape]
    words = (COUNT_WORDS[group.count - 1], group.kind.size, group.kind.color, noun)
    return " ".join(word for word in words if word)


def _task(groups: tuple[Group, ...], relation: str | None) -> str:
    if relation is not None:
        return "position"
    if any(group.count > 1 for group in groups):
        return "counting"
    if len(groups) == 2:
        described = any(group.kind.color or group.kind.size for group in groups)
        return "binding" if described else "two"
    return "colors" if groups[0].kind.color else "single"


def parse(text: str) -> Request:
    """Read a caption; canonical captions come back exactly (letter case, outer spaces and a final stop are forgiven).

    Raises:
        CaptionError: when the text is not of the grammar.
    """
    words = " ".join(text.lower().strip().rstrip(".").split())
    pieces = _JOIN.split(words)
    if len(pieces) not in (1, 3):
        raise CaptionError(f"cannot read {text!r}: a caption is '<things>' or '<things> and|left of|… <things>'")
    groups = tuple(_parse_group(piece, text) for piece in pieces[::2])
    relation = pieces[1] if len(pieces) == 3 and pieces[1] != "and" else None
    return make_request(groups, relation)


def _parse_group(piece: str, text: str) -> Group:
    match = _GROUP.fullmatch(piece)
    if match is None:
        form = "'<count> [size] [color] <shape>', as 'two red stars'"
        raise CaptionError(f"cannot read {piece!r} in {text!r}: write {form}")
    count = COUNT_WORDS.index(match["count"]) + 1
    shape = _SINGULAR.get(match["shape"], match["shape"])
    if (match["shape"] == shape) != (count == 1):
        raise CaptionError(f"{piece!r} in {text!r} mixes singular and plural")
    return Group(count, Description(shape, match["color"], match["size"]))


def relation_holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether ``first`` stands in ``relation`` to ``second``; at most one of the four relations does."""
    dx, dy = first.x - second.x, first.y - second.y
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    signed = -along if relation in ("left of", "above") else along
    return signed >= RELATION_MARGIN and signed >= abs(across)


def clause_holds(scene: Scene, clause: Clause) -> bool:
    """Symbolic truth of one clause about a scene."""
    if clause.test == "total":
        return len(scene.things) == clause.count
    fitting = [thing for thing in scene.things if clause.kind and clause.kind.fits(thing)]
    if clause.test == "count":
        return len(fitting) == clause.count
    others = [thing for thing in scene.things if clause.other and clause.other.fits(thing)]
    return len(fitting) == len(others) == 1 and relation_holds(clause.relation or "", fitting[0], others[0])


def holds(scene: Scene, request: Request) -> list[bool]:
    """Symbolic truth of every clause of a request, in order; the request is fulfilled when all are true."""
    return [clause_holds(scene, clause) for clause in request.clauses]
