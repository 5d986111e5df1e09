"""What the scenes' vision-language model is asked: to describe a picture, to find things in it, and yes/no questions.

| question | yes when |
|---|---|
| Is there a small red circle? | at least one thing fits |
| Is there exactly one red circle? Are there exactly two red circles? | exactly so many things fit |
| Is there exactly one thing? Are there exactly three things? | the picture shows exactly so many |
| Is the red circle left of the blue star? | one thing fits each, and they stand so (`language.clause_holds`) |
"""

import re
from dataclasses import dataclass

from mmalign.miniworld.language import (
    COUNT_WORDS,
    PLURALS,
    RELATIONS,
    CaptionError,
    Clause,
    Description,
    Group,
    Request,
    clause_holds,
)
from mmalign.miniworld.scenes import COLORS, SHAPES, SIZES, Scene

CAPTION = "Describe the picture."
YES, NO = "yes", "no"
_ONE = "one"

_SHAPE = "|".join(sorted((*SHAPES, *PLURALS.values()), key=len, reverse=True))
_KIND = rf"(?:(?:{'|'.join(SIZES)}) )?(?:(?:{'|'.join(COLORS)}) )?(?:{_SHAPE})"
_SOME = re.compile(rf"is there a ({_KIND})")
_COUNT = re.compile(rf"(?:is|are) there exactly ({'|'.join((_ONE, *COUNT_WORDS[1:]))}) ({_KIND}|things?)")
_RELATION = re.compile(rf"is the ({_KIND}) ({'|'.join(RELATIONS)}) the ({_KIND})")
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


@dataclass(frozen=True)
class Question:
    """A yes/no question: whether ``clause`` holds; with ``some``, whether at least one thing is of its kind."""

    text: str
    clause: Clause
    some: bool = False


def ask(clause: Clause, some: bool = False) -> Question:
    """A clause as a question; ``some`` asks for one thing or more of a count clause's kind."""
    if clause.kind is not None and clause.other is not None:
        return Question(f"Is the {_name(clause.kind)} {clause.relation} the {_name(clause.other)}?", clause)
    if some and clause.kind is not None:
        return Question(f"Is there a {_name(clause.kind)}?", Clause("count", 1, clause.kind), some=True)
    many = clause.count > 1
    noun = _name(clause.kind, many) if clause.kind else "things" if many else "thing"
    start, number = ("Are", COUNT_WORDS[clause.count - 1]) if many else ("Is", _ONE)
    return Question(f"{start} there exactly {number} {noun}?", clause)


def answer(question: Question, scene: Scene) -> bool:
    """Is yes the right answer to the question about this scene?"""
    kind = question.clause.kind
    if question.some and kind is not None:
        return any(kind.fits(thing) for thing in scene.things)
    return clause_holds(scene, question.clause)


def parse_question(text: str) -> Question:
    """Read a question back (letter case, outer spaces and the question mark are forgiven).

    Raises:
        CaptionError: when the text is no question of the grammar.
    """
    words = " ".join(text.lower().rstrip("? ").split())
    if match := _SOME.fullmatch(words):
        question = ask(Clause("count", 1, _kind(match[1])), some=True)
    elif match := _COUNT.fullmatch(words):
        count = 1 if match[1] == _ONE else COUNT_WORDS.index(match[1]) + 1
        total = match[2].startswith("thing")
        question = ask(Clause("total", count) if total else Clause("count", count, _kind(match[2])))
    elif match := _RELATION.fullmatch(words):
        question = ask(Clause("relation", 1, _kind(match[1]), match[2], _kind(match[3])))
    else:
        raise CaptionError(f"cannot read {text!r}: questions are 'Is there a …?', 'Are there exactly …?', 'Is the …?'")
    if question.text.lower().rstrip("?") != words:
        raise CaptionError(f"{text!r} mixes singular and plural: write {question.text!r}")
    return question


def questions_of(request: Request) -> list[Question]:
    """One question for each clause of a request, in their order; all are answered yes where it is fulfilled."""
    return [ask(clause) for clause in request.clauses]


def key_questions(request: Request) -> list[tuple[Question, tuple[int, ...]]]:
    """What a request asks in small steps, each with the places of the questions that must be answered yes before it.

    For each group whether there is such a shape, in that color, of that size, and so many; then the total; then the
    relation. Steps that a group leaves open are left out.
    """
    questions: list[tuple[Question, tuple[int, ...]]] = []
    last: list[int] = []
    for group in request.groups:
        shape, color, size = group.kind
        kinds = dict.fromkeys([Description(shape), Description(shape, color), Description(shape, color, size)])
        for step, kind in enumerate(kinds):
            questions.append((ask(Clause("count", 1, kind), some=True), (len(questions) - 1,) if step else ()))
        questions.append((ask(Clause("count", group.count, group.kind)), (len(questions) - 1,)))
        last.append(len(questions) - 1)
    for clause in request.clauses[len(request.groups) :]:
        questions.append((ask(clause), tuple(last) if clause.test == "relation" else ()))
    return questions


def where(group: Group) -> str:
    """The question for the boxes of things."""
    many = group.count > 1
    return f"Where {'are' if many else 'is'} the {_name(group.kind, many)}?"


def _name(kind: Description, many: bool = False) -> str:
    noun = PLURALS[kind.shape] if many else kind.shape
    return " ".join(word for word in (kind.size, kind.color, noun) if word)


def _kind(text: str) -> Description:
    words = text.split()
    color = next((word for word in words if word in COLORS), None)
    size = next((word for word in words if word in SIZES), None)
    return Description(_SINGULAR.get(words[-1], words[-1]), color, size)
