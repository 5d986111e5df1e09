"""How people ask for scenes: everyday wording of a request, which the generator cannot read and a rewriter must.

Every wording says exactly what the canonical caption says. ``WAYS`` are the ways in which it may differ from it.
"""

from collections.abc import Callable, Mapping

import numpy as np

from mmalign.core.errors import ConfigError
from mmalign.miniworld.language import COUNT_WORDS, PLURALS, Description, Group, Request

#: Other words for one; the first is the usual one.
SHAPE_WORDS = {
    "circle": ("disc", "ring", "round thing", "dot"),
    "square": ("box", "block", "tile"),
    "triangle": ("wedge", "three-cornered thing", "pyramid"),
    "star": ("starlet", "twinkling thing", "pointed thing"),
    "cross": ("plus sign", "plus", "crossed thing"),
}
COLOR_WORDS = {
    "red": ("crimson", "scarlet", "ruby"),
    "green": ("emerald", "grassy", "leafy"),
    "blue": ("navy", "azure", "cobalt"),
    "yellow": ("golden", "lemony", "sunny"),
    "purple": ("violet", "lilac", "plum"),
    "black": ("dark", "jet", "inky"),
}
SIZE_WORDS = {"small": ("tiny", "little", "mini"), "large": ("big", "huge", "giant")}
COUNT_PHRASES = {
    1: ("one", "a single"),
    2: ("a pair of", "a couple of"),
    3: ("a trio of", "three of those"),
    4: ("a foursome of", "a set of four"),
}
OPENINGS = (
    "please draw",
    "can you paint",
    "i would like",
    "show me",
    "i want to see",
    "make me a picture with",
    "how about",
)
CLOSINGS = ("please", "thanks", "if you can", "that is all", "nothing else")
#: What stands between two things that are not related: plainly, and politely.
_JOINS = ("plus also", "together with")
#: Further words of the wordings: the former and the latter, negation, and what sets off a closing.
_FRAMES = "and , the former latter not"
_TURNED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_RELATION_WORDS = {
    "left of": ("on the left side of", "to the left of"),
    "right of": ("on the right side of", "to the right of"),
    "above": ("over", "on top of", "higher than"),
    "below": ("under", "beneath", "lower than"),
}
#: Draws without a new wording, one after the other, after which there is none left worth drawing for.
_IN_VAIN = 2000
_OTHER_SIZE = {"small": "large", "large": "small"}


def colloquial(request: Request, rng: np.random.Generator, ways: tuple[str, ...] = ()) -> str:
    """An everyday wording, in lower case without punctuation marks but commas.

    Args:
        request: what is meant.
        rng: decides the words.
        ways: of ``WAYS``, those to use where they fit; none given draws one to three of them.
    """
    chosen = ways or tuple(rng.choice(list(WAYS), size=int(rng.integers(1, 4)), replace=False))
    wording = _Wording(rng, frozenset(chosen))
    return wording.of(request)


class _Wording:
    """One draw of words for one request."""

    def __init__(self, rng: np.random.Generator, ways: frozenset[str]) -> None:
        self.rng, self.ways = rng, ways

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def of(self, request: Request) -> str:
        groups, relation = request.groups, request.relation
        if "turned" in self.ways and len(groups) == 2:
            groups, relation = (groups[1], groups[0]), _TURNED.get(relation or "")
        things = [self.group(group) for group in groups]
        if len(things) == 1:
            body = things[0]
        elif relation is None:
            body = f"{things[0]} {_JOINS['polite' in self.ways]} {things[1]}"
        else:
            body = self.related(things, relation)
        if "polite" in self.ways:
            body = f"{self.pick(OPENINGS)} {body}"
            if self.rng.random() < 0.5:
                body = f"{body} , {self.pick(CLOSINGS)}"
        return body

    def related(self, things: list[str], relation: str) -> str:
        place = self.pick(_RELATION_WORDS[relation]) if "synonyms" in self.ways else relation
        if "pronouns" in self.ways:
            # "a star and a box , the former under the latter"
            return f"{things[0]} and {things[1]} , the former {place} the latter"
        return f"{things[0]} {place} {things[1]}"

    def group(self, group: Group) -> str:
        kind, count = group.kind, group.count
        after: list[str] = []
        size = kind.size
        if size and "negation" in self.ways:
            after.append(f"not {_OTHER_SIZE[size]}")
            size = None
        words = [self.word(SIZE_WORDS, size), self.word(COLOR_WORDS, kind.color), self.noun(kind, count)]
        phrase = " ".join([self.count(count), *(word for word in words if word)])
        return " ".join([phrase, *after])

    def word(self, synonyms: Mapping[str, tuple[str, ...]], value: str | None) -> str | None:
        return self.pick(synonyms[value]) if value and "synonyms" in self.ways else value

    def noun(self, kind: Description, count: int) -> str:
        if "synonyms" not in self.ways:
            return kind.shape if count == 1 else PLURALS[kind.shape]
        noun = self.pick(SHAPE_WORDS[kind.shape])
        return noun if count == 1 else _plural(noun)

    def count(self, count: int) -> str:
        if "counts" in self.ways:
            return self.pick(COUNT_PHRASES[count])
        return COUNT_WORDS[count - 1]


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def wording_words() -> set[str]:
    """Every word of wordings that need not be one of a caption."""
    nouns = [noun for nouns in SHAPE_WORDS.values() for noun in nouns]
    tables = (COLOR_WORDS, SIZE_WORDS, COUNT_PHRASES, _RELATION_WORDS)
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    words = [*nouns, *map(_plural, nouns), *phrases, *OPENINGS, *CLOSINGS, *_JOINS, _FRAMES]
    return set(" ".join(words).split())


#: Politeness around it, other words, other counts, negated sizes, the former and the latter, the other way round.
WAYS = ("polite", "synonyms", "counts", "negation", "pronouns", "turned")


def same_meaning(one: Request, other: Request) -> bool:
    """Whether two requests ask for the same: groups in any order, and a relation told from either side."""
    return set(one.groups) == set(other.groups) and _arranged(one) == _arranged(other)


def _arranged(request: Request) -> tuple | None:
    if request.relation is None:
        return None
    first, second = (group.kind for group in request.groups)
    turned = request.relation in ("right of", "below")
    return (second, _TURNED[request.relation], first) if turned else (first, request.relation, second)


def pairs(n: int, seed: int, sample: Callable[[np.random.Generator], Request]) -> list[tuple[str, Request]]:
    """``n`` distinct wordings, each with what is meant by it.

    Raises:
        ConfigError: there are hardly so many; says how many were found before draws gave nothing new.
    """
    rng = np.random.default_rng([17, seed])
    requests: dict[str, Request] = {}
    in_vain = 0
    while len(requests) < n:
        if in_vain == _IN_VAIN:
            raise ConfigError(
                f"{n} different requests: {len(requests)} were found, then {in_vain} draws gave no other; "
                f"ask for at most {len(requests)}."
            )
        request = sample(rng)
        text = colloquial(request, rng)
        fresh = text != request.text and text not in requests
        in_vain = 0 if fresh else in_vain + 1
        if fresh:
            requests[text] = request
    return list(requests.items())
