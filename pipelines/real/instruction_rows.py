"""Requests whose answers a rule can check: a topic, which the answer has to name, and two instructions, or a small sum.

Instructions are of eleven kinds in three groups: form, case and content. A request has one of each of two groups. Nine
pairs of kinds are held out: of each kind another pair is trained on, the two together are not. Held-out requests have
topics, words, phrases and keys of their own too. What a request asks is in `instructions`, as the reward
`instruction_adherence` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.core.files import write_beside

Draw = np.random.Generator
Instruction = tuple[str, dict[str, Any]]  # an instruction in words, and as a rule reads it


@dataclass(frozen=True)
class Values:
    """What the requests of one side are made of; no entry is of both sides."""

    topics: tuple[str, ...]
    words: tuple[str, ...]
    openings: tuple[str, ...]
    endings: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    sums: tuple[int, ...]  # remainders of a sum by 4


def _cut(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


TRAINED = Values(
    _cut(
        "the sea,a train,winter,bread,a cat,the moon,music,a garden,tea,a forest,rain,a library,chess,a river,coffee,"
        "a bicycle,the desert,a market,honey,a storm,school,a mountain,football,an apple,a ship,sleep"
    ),
    _cut("blue,small,old,light,warm,people,day,good,water,long,new,home"),
    ("Well,", "In short,", "Yes,", "Dear reader,", "Today", "Here is", "Note:", "I think"),
    ("That is all.", "Thank you!", "The end.", "See you soon.", "Good luck!", "So it is.", "Take care.", "Enjoy!"),
    (
        ("name", "colour"),
        ("title", "year"),
        ("place", "season"),
        ("animal", "food"),
        ("topic", "fact"),
        ("word", "size"),
    ),
    (0, 1, 2),
)
HELD_OUT = Values(
    _cut("a bridge,summer,cheese,a dog,the sun,painting,a kitchen,a candle,snow,a museum,a lake,the city"),
    _cut("green,large,young,quiet,life,time,best"),
    ("First,", "Of course,", "My friend,", "Tonight"),
    ("Nothing more.", "Goodbye!", "Until then.", "Be well."),
    (("person", "job"), ("city", "country"), ("drink", "price")),
    (3,),
)


def pick(draw: Draw, of: tuple[Any, ...]) -> Any:
    """One of several, all as likely."""
    return of[int(draw.integers(len(of)))]


def _count(draw: Draw, low: int, high: int) -> int:
    return int(draw.integers(low, high + 1))


def _words(draw: Draw, values: Values) -> Instruction:
    n = _count(draw, 5, 9)
    return f"Use exactly {n} words.", {"words": n}


def _max_words(draw: Draw, values: Values) -> Instruction:
    n = _count(draw, 6, 12)
    return f"Use at most {n} words.", {"max_words": n}


def _bullets(draw: Draw, values: Values) -> Instruction:
    n = _count(draw, 2, 3)
    return f"Write exactly {n} short bullet points, each on its own line, starting with a dash.", {"bullets": n}


def _json(draw: Draw, values: Values) -> Instruction:
    first, second = pick(draw, values.keys)
    text = f'Answer only with a JSON object with the keys "{first}" and "{second}".'
    return text, {"json_keys": [first, second]}


def _sentence(draw: Draw, values: Values) -> Instruction:
    return "Write exactly one sentence of at most 15 words.", {"sentences": 1, "max_words": 15}


def _lower(draw: Draw, values: Values) -> Instruction:
    return "Write everything in lowercase letters.", {"lower_case": True}


def _upper(draw: Draw, values: Values) -> Instruction:
    return "Write everything in CAPITAL LETTERS.", {"upper_case": True}


def _contains(draw: Draw, values: Values) -> Instruction:
    word = pick(draw, values.words)
    return f'Use the word "{word}".', {"contains": word}


def _excludes(draw: Draw, values: Values) -> Instruction:
    return "Do not use any commas.", {"excludes": ","}


def _starts(draw: Draw, values: Values) -> Instruction:
    opening = pick(draw, values.openings)
    return f'Begin with "{opening}"', {"starts_with": opening}


def _ends(draw: Draw, values: Values) -> Instruction:
    ending = pick(draw, values.endings)
    return f'End with "{ending}"', {"ends_with": ending}


KINDS: dict[str, Callable[[Draw, Values], Instruction]] = {
    name.strip("_"): make
    for name, make in (
        ("words", _words),
        ("max_words", _max_words),
        ("bullets", _bullets),
        ("json", _json),
        ("sentence", _sentence),
        ("lower", _lower),
        ("upper", _upper),
        ("contains", _contains),
        ("excludes", _excludes),
        ("starts", _starts),
        ("ends", _ends),
    )
}
FORM, CASE = ("words", "max_words", "bullets", "json", "sentence"), ("lower", "upper")
CONTENT = ("contains", "excludes", "starts", "ends")
AT_ODDS = {("bullets", "starts"), ("json", "starts"), ("json", "ends"), ("json", "excludes"), ("json", "upper")}
SPARED = {  # pairs that no training request has
    *(("words", "lower"), ("max_words", "ends"), ("bullets", "contains"), ("json", "lower"), ("sentence", "starts")),
    *(("sentence", "upper"), ("lower", "ends"), ("upper", "excludes"), ("words", "contains")),
}


def pairs(spared: bool) -> list[tuple[str, str]]:
    """The pairs of kinds that are held out, or the others."""
    every = [pair for a, b in ((FORM, CASE), (FORM, CONTENT), (CASE, CONTENT)) for pair in product(a, b)]
    return [pair for pair in every if pair not in AT_ODDS and (pair in SPARED) == spared]


def request(draw: Draw, kinds: tuple[str, str], values: Values) -> dict[str, Any]:
    """A topic with two instructions."""
    instructions = [KINDS[kind](draw, values) for kind in kinds]
    brief = [] if set(kinds) & set(FORM) else ["Write one short sentence."]
    topic = pick(draw, values.topics)
    text = " ".join([f"Write about {topic} and name it.", *brief, *(words for words, _ in instructions)])
    named = {"contains": topic.split()[-1]}  # without it the shortest answers win, about nothing
    return {"prompt": text, "instructions": [named, *(rule for _, rule in instructions)], "kinds": "+".join(kinds)}


def sum_of_two(draw: Draw, values: Values) -> dict[str, Any]:
    """A sum up to 20, to be answered by the number alone."""
    a, b = _count(draw, 1, 10), _count(draw, 1, 10)
    while (a + b) % 4 not in values.sums:
        a, b = _count(draw, 1, 10), _count(draw, 1, 10)
    text = f"What is {a} + {b}? Answer only with the number."
    return {"prompt": text, "instructions": [{"equals": str(a + b)}], "kinds": "sum"}


def rows(count: int, held_out: bool, seed: int) -> list[dict[str, Any]]:
    """`count` different requests, pairs of kinds in turn; one in twelve is a sum."""
    draw, values, kinds = np.random.default_rng([seed, held_out]), HELD_OUT if held_out else TRAINED, pairs(held_out)
    made: dict[str, dict[str, Any]] = {}
    turn = 0
    while len(made) < count:
        row = sum_of_two(draw, values) if turn % 12 == 11 else request(draw, kinds[turn % len(kinds)], values)
        made.setdefault(row["prompt"], row)
        turn += 1
    return list(made.values())


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    with write_beside(path) as beside:
        beside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
