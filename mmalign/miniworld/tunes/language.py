"""Captions of tunes: what they mean exactly, how they are written and read, and when they are true.

A caption states some of a tune's attributes, in their order, as in "slow rising low flute notes" or "fast chords". The
texture is always stated; "chords" leaves open which.
"""

from functools import cache
from typing import NamedTuple

from mmalign.miniworld.language import CaptionError
from mmalign.miniworld.tunes.tune import ATTRIBUTES, Tune

#: What a caption can say of each attribute.
VALUES: dict[str, tuple[str, ...]] = {**ATTRIBUTES, "texture": (*ATTRIBUTES["texture"], "chords")}
_ATTRIBUTE_OF = {value: attribute for attribute, values in VALUES.items() for value in values}


class Clause(NamedTuple):
    """One checkable part of a request: the value that one attribute must have."""

    attribute: str
    value: str


class Request(NamedTuple):
    """What a caption asks for: one clause for every attribute that it states, in the order of ``ATTRIBUTES``."""

    text: str
    clauses: tuple[Clause, ...]

    @property
    def stated(self) -> dict[str, str]:
        """The stated attributes and their values."""
        return dict(self.clauses)


def make_request(stated: dict[str, str]) -> Request:
    """Build the request that states these attributes.

    Raises:
        CaptionError: when an attribute or value is unknown, or no texture is stated.
    """
    for attribute, value in stated.items():
        if value not in VALUES.get(attribute, ()):
            known = ", ".join(VALUES.get(attribute, VALUES))
            raise CaptionError(f"cannot ask for {attribute} {value!r}: use one of {known}")
    if "texture" not in stated:
        raise CaptionError(f"a caption ends in what is played: one of {', '.join(VALUES['texture'])}")
    return _assemble(tuple(Clause(attribute, stated[attribute]) for attribute in VALUES if attribute in stated))


@cache
def _assemble(clauses: tuple[Clause, ...]) -> Request:
    return Request(" ".join(clause.value for clause in clauses), clauses)


def parse(text: str) -> Request:
    """Read a caption; canonical captions come back exactly (letter case, outer spaces and a final stop are forgiven).

    Raises:
        CaptionError: when the text is not of the grammar.
    """
    words = text.lower().strip().rstrip(".").split()
    last = " ".join(words[-2:])
    values = [*words[:-2], last] if last in VALUES["texture"] else words
    if unknown := [value for value in values if value not in _ATTRIBUTE_OF]:
        raise CaptionError(f"cannot read {unknown[0]!r} in {text!r}: the words are {', '.join(grammar_words())}")
    request = make_request({_ATTRIBUTE_OF[value]: value for value in values})
    if request.text.split() != words:
        raise CaptionError(f"cannot read {text!r}: state each of {', '.join(VALUES)} once at most, in this order")
    return request


def grammar_words() -> list[str]:
    """Every word that a canonical caption can contain, sorted."""
    return sorted({word for values in VALUES.values() for value in values for word in value.split()})


def clause_holds(tune: Tune, clause: Clause) -> bool:
    """Truth of one clause about a tune; of an unknown attribute nothing holds."""
    value = getattr(tune, clause.attribute)
    return value == clause.value or (clause.value == "chords" and value in ("major chords", "minor chords"))


def holds(tune: Tune, request: Request) -> list[bool]:
    """Truth of every clause of a request, in order; the request is fulfilled when all are true."""
    return [clause_holds(tune, clause) for clause in request.clauses]
