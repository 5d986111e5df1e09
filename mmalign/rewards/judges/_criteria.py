"""Criteria in words, as plain data: {text, kind, weight, positive, name}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from mmalign.core.errors import did_you_mean

Kind = Literal["soft", "hard"]


@dataclass(frozen=True)
class Criterion:
    """One thing that an output should be, or should not.

    Args:
        text: a sentence, or a question that ends with a question mark.
        kind: `soft` ones are weighed against one another; a `hard` one that does not hold undoes the others.
        weight: in the mean.
        positive: whether yes is good. Absences are asked for by their contrary: "It shows a watermark.", not positive.
        name: under which it is logged; "": it is not, on its own.
    """

    text: str
    kind: Kind = "soft"
    weight: float = 1.0
    positive: bool = True
    name: str = ""

    @property
    def question(self) -> bool:
        """Is it asked as it stands?"""
        return self.text.endswith(("?", "？"))


_KNOWN = tuple(Criterion.__dataclass_fields__)


def read_criteria(value: object, place: str) -> list[Criterion]:
    """Criteria from plain data: a list, or one by itself, of texts and {text, kind?, weight?, positive?, name?}.

    Raises:
        ValueError: naming `place` and the number of the entry that is wrong.
    """
    entries = value if isinstance(value, list | tuple) else [value]
    return [_criterion(entry, f"{place}[{number}]") for number, entry in enumerate(entries)]


def _criterion(entry: object, place: str) -> Criterion:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place}: a criterion is a text or an object with a text, found {type(entry).__name__}")
    # A table fills in every column of every row: None there is nothing said.
    fields = {str(key): item for key, item in entry.items() if item is not None}
    if odd := [key for key in fields if key not in _KNOWN]:
        raise ValueError(f"{place}: unknown field '{odd[0]}'.{did_you_mean(odd[0], _KNOWN)} Known: {', '.join(_KNOWN)}")
    text, kind, name = fields.get("text"), fields.get("kind", "soft"), fields.get("name", "")
    weight, positive = fields.get("weight", 1.0), fields.get("positive", True)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: needs a text that says what is asked")
    if kind not in get_args(Kind):
        raise ValueError(f"{place}: kind is {' or '.join(get_args(Kind))}, found {kind!r}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ValueError(f"{place}: weight is a positive number, found {weight!r}")
    if not isinstance(positive, bool):
        raise ValueError(f"{place}: positive is true or false, found {positive!r}")
    if not isinstance(name, str) or "/" in name:
        raise ValueError(f"{place}: name is a text without '/', found {name!r}")
    return Criterion(text.strip(), cast(Kind, kind), float(weight), positive, name.strip())
