"""The 24 key points of text-to-image alignment in their six groups, and the questions that ask for them.

Names and groups are those of PromptEnhancer (arXiv 2509.04545); its evaluator itself is not published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmalign.core.errors import did_you_mean

#: What each asks of a picture, by group: the names in a data set's `point` are these, in any letter case.
GROUPS: dict[str, dict[str, str]] = {
    "linguistic": {
        "negation": "something must not be there",
        "attribute_consistency": "one attribute is that of all entities",
        "pronoun_resolution": "a pronoun stands for the right entity",
    },
    "visual": {
        "counting": "there are so many",
        "size": "it is so large",
        "material": "it is made of that",
        "expression": "the face shows that feeling",
        "artistic_style": "the picture is in that style",
    },
    "action": {
        "full_body_action": "the whole body does it",
        "hand_action": "the hands do it",
        "animal_action": "an animal does it",
        "contact_interaction": "two entities touch in doing it",
        "interaction_without_contact": "two entities do it without touching",
        "state": "it is in that state",
    },
    "relation": {
        "comparative_relation": "one is more so than the other",
        "compositional_relation": "one is made up of the others",
        "containment_relation": "one is inside the other",
        "similarity_relation": "one is shaped like the other",
        "cross_entity_binding": "each entity has its own attributes",
        "entity_layout": "they are arranged so",
    },
    "knowledge": {
        "knowledge_application": "it is what knowledge of the world says",
        "counterfactual": "it is what the world would not allow",
    },
    "text": {
        "text_rendering": "these words are written there",
        "text_layout": "the words stand there, in that type",
    },
}
POINTS: dict[str, str] = {point: group for group, points in GROUPS.items() for point in points}
_SHORT = {name.removesuffix("_relation"): name for name in POINTS}


@dataclass(frozen=True)
class KeyPoint:
    """One question about an output.

    Args:
        point: which of `POINTS` it is about.
        question: a judge answers it with yes or no.
        positive: whether yes is good. An absence is asked for by its contrary: "is there a dog?", not positive.
        parents: numbers of the points, before this one in its list, without which this one means nothing.
        weight: in the mean of its group.
    """

    point: str
    question: str
    positive: bool = True
    parents: tuple[int, ...] = ()
    weight: float = 1.0

    @property
    def group(self) -> str:
        """The group of the point, one of `GROUPS`."""
        return POINTS[self.point]


def point_named(name: str) -> str:
    """The key point of a name as data sets write it ("Full-body Action", "Interaction w/o Contact", "Similarity").

    Raises:
        ValueError: none of the 24.
    """
    plain = re.sub(r"\bw\s*/?\s*o\b", "without", name.lower().replace("w/o", "without"))
    plain = re.sub(r"[^a-z]+", "_", plain).strip("_")
    if (key := _SHORT.get(plain.removesuffix("_relation"), plain)) not in POINTS:
        raise ValueError(
            f"'{name[:60]}' is none of the {len(POINTS)} key points.{did_you_mean(plain[:60], POINTS)} "
            f"Known: {', '.join(POINTS)}."
        )
    return key


def read_key_points(value: object, place: str) -> list[KeyPoint]:
    """Key points from plain data: a list of {point, question, positive?, parent?, weight?}.

    `parent` is the number of an earlier point, or a list of such.

    Raises:
        ValueError: naming `place` and the number of the entry that is wrong.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{place}: expected a list of key points, found {type(value).__name__}")
    return [_key_point(entry, number, f"{place}[{number}]") for number, entry in enumerate(value)]


def _key_point(entry: object, number: int, place: str) -> KeyPoint:
    known = ("point", "question", "positive", "parent", "weight")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{place}: expected an object with point and question, found {type(entry).__name__}")
    # A table fills in every column of every row: None there is nothing said.
    columns = {str(key): item for key, item in entry.items() if item is not None}
    if odd := [key for key in columns if key not in known]:
        raise ValueError(f"{place}: unknown field '{odd[0]}'; known: {', '.join(known)}")
    point, question = columns.get("point"), columns.get("question")
    if not isinstance(point, str) or not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: needs a point and a question, both texts")
    positive, parent, weight = columns.get("positive", True), columns.get("parent", []), columns.get("weight", 1.0)
    parents = parent if isinstance(parent, list | tuple) else [parent]
    if not isinstance(positive, bool):
        raise ValueError(f"{place}: positive is true or false, found {positive!r}")
    if not all(type(p) is int and 0 <= p < number for p in parents):
        raise ValueError(f"{place}: parent is the number of an earlier point, found {parent!r}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ValueError(f"{place}: weight is a positive number, found {weight!r}")
    try:
        return KeyPoint(point_named(point), question.strip(), positive, tuple(parents), float(weight))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
