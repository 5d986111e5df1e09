"""Lessons for the scenes' vision-language model: pictures with questions about them and their exact answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from mmalign.miniworld.boxes import boxes_of, loosened, write_boxes
from mmalign.miniworld.compositions import shows_unseen_color, unseen_clause
from mmalign.miniworld.descriptions import careless, describe, sample_described
from mmalign.miniworld.grammar import Request, hard_negatives
from mmalign.miniworld.language import RELATIONS, Clause, Description, Group, relation_holds
from mmalign.miniworld.questions import CAPTION, NO, YES, Question, answer, ask, questions_of, where
from mmalign.miniworld.scenes import COLORS, MAX_THINGS, SHAPES, SIZES, Scene, Thing, render

T = TypeVar("T")

#: Of questions for one thing or more, for an exact number, for the total, and for a relation.
_STYLES = (0.25, 0.3, 0.15, 0.3)
#: How often a question says what sort of answer it wants.
_INSTRUCTED = 0.25
INSTRUCTION = "Answer yes or no."


class Lesson(NamedTuple):
    """One question about a picture and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Course:
    """How much of what is taught about each picture: yes/no questions, captions and boxes, on average.

    ``careless`` is the share of colours, sizes and relations that captions leave out, ``loose`` that of boxes that have
    a margin. The share ``unseen`` of pictures shows compositions of the held-out split: a judge must know what writers
    and painters are not shown, so these come with yes/no questions, without captions and boxes.
    """

    questions: int = 8
    captions: float = 1.0
    boxes: float = 1.0
    careless: float = 0.0
    loose: float = 0.0
    unseen: float = 0.0

    @property
    def judging(self) -> "Course":
        """The same course with its yes/no questions alone."""
        return replace(self, captions=0.0, boxes=0.0)


def draw_lessons(
    scene: Scene, request: Request | None, rng: np.random.Generator, course: Course, split: str = "train"
) -> list[Lesson]:
    """Lessons about one picture, its caption first.

    Args:
        scene: what the picture shows.
        request: what it was made for, where it was made for something: a source of likely questions.
        rng: source of chance.
        course: how many of each kind.
        split: "train" leaves out whatever names an unseen composition.
    """
    lessons = []
    description = describe(scene)
    if description is not None and rng.random() < course.captions:
        caption = careless(description, rng, course.careless) if course.careless else description
        lessons.append(Lesson(CAPTION, caption.text))
    if all(thing.shape in SHAPES for thing in scene.things):
        lessons += [find(scene, rng, course.loose) for _ in range(rng.poisson(course.boxes)) if scene.things]
    near = likely_questions(request or description, rng)
    for _ in range(course.questions):
        question = draw_question(scene, near, rng, split)
        text = f"{question.text} {INSTRUCTION}" if rng.random() < _INSTRUCTED else question.text
        lessons.append(Lesson(text, YES if answer(question, scene) else NO))
    return lessons


def find(scene: Scene, rng: np.random.Generator, loose: float = 0.0) -> Lesson:
    """The question for the boxes of one kind of thing in a scene, and these, the ``loose`` share with a margin."""
    kind = draw_kind(scene, rng)
    boxes = [loosened(box) if loose and rng.random() < loose else box for box in boxes_of(scene, kind)]
    return Lesson(where(Group(len(boxes), kind)), write_boxes(boxes))


def draw_kind(scene: Scene, rng: np.random.Generator) -> Description:
    """A kind of thing that a scene of known shapes shows."""
    return _masked(_pick(rng, scene.things), rng)


def likely_questions(request: Request | None, rng: np.random.Generator) -> list[Question]:
    """What a judge would ask of a picture made for a request, and for others that are almost the same."""
    if request is None:
        return []
    return [question for one in (request, *hard_negatives(request, 3, rng)) for question in questions_of(one)]


def draw_question(scene: Scene, near: list[Question], rng: np.random.Generator, split: str = "train") -> Question:
    """A yes/no question that is as often true as false of a scene; in three of ten draws one of ``near`` if it can."""
    wanted = bool(rng.random() < 0.5)
    while True:
        for question in _proposals(scene, near, rng):
            if answer(question, scene) == wanted and not (split == "train" and unseen_clause(question.clause)):
                return question
        wanted = not wanted  # about an empty picture, little is true


def _proposals(scene: Scene, near: list[Question], rng: np.random.Generator) -> Iterator[Question]:
    """Some twenty questions about a scene."""
    if near and rng.random() < 0.3:
        yield from (near[i] for i in rng.permutation(len(near)))
    for _ in range(20):
        style = int(rng.choice(4, p=_STYLES))
        if style == 3:
            yield from _related(scene, rng)
            continue
        if style == 2:
            yield ask(Clause("total", int(rng.integers(1, MAX_THINGS + 1))))
            continue
        kind = _kind(scene, rng)
        if style == 0:
            yield ask(Clause("count", 1, kind), some=True)
            continue
        true = sum(kind.fits(thing) for thing in scene.things)
        count = true if true and rng.random() < 0.5 else int(rng.integers(1, MAX_THINGS + 1))
        yield ask(Clause("count", min(count, MAX_THINGS), kind))


def _related(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    known = _known(scene)
    if len(known) < 2:
        return
    first, second = (known[i] for i in rng.permutation(len(known))[:2])
    kinds = [_telling(first, second, rng), _telling(second, first, rng)]
    true = [name for name in RELATIONS if relation_holds(name, first, second)]
    relation = true[0] if true and rng.random() < 0.5 else _pick(rng, RELATIONS)
    if rng.random() < 0.2:
        kinds = [_changed(kinds[0], rng), kinds[1]]
    if not kinds[0].overlaps(kinds[1]):
        yield ask(Clause("relation", 1, kinds[0], relation, kinds[1]))


def _telling(thing: Thing, other: Thing, rng: np.random.Generator) -> Description:
    """A kind that fits a thing, and not the other one if that is possible."""
    kind = _masked(thing, rng)
    if kind.fits(other):
        kind = kind._replace(color=thing.color)
    return kind._replace(size=thing.size) if kind.fits(other) else kind


def _known(scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if thing.shape in SHAPES]


def _kind(scene: Scene, rng: np.random.Generator) -> Description:
    """A kind that is there, or differs from one by a trait."""
    known = _known(scene)
    if not known or rng.random() < 0.1:
        return _masked(Thing(_pick(rng, SHAPES), _pick(rng, COLORS), _pick(rng, SIZES), 0, 0), rng)
    kind = _masked(_pick(rng, known), rng)
    return _changed(kind, rng) if rng.random() < 0.5 else kind


def _masked(thing: Thing, rng: np.random.Generator) -> Description:
    """A kind that fits a thing, not always with all its traits."""
    color = thing.color if rng.random() < 0.7 else None
    return Description(thing.shape, color, thing.size if rng.random() < 0.4 else None)


def _changed(kind: Description, rng: np.random.Generator) -> Description:
    """Another value of one trait that a kind states."""
    stated = [("shape", SHAPES), ("color", COLORS), ("size", SIZES)]
    trait, values = _pick(rng, [(trait, values) for trait, values in stated if getattr(kind, trait)])
    other = _pick(rng, [value for value in values if value != getattr(kind, trait)])
    return kind._replace(**{trait: other})


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


class Shown(NamedTuple):
    """One picture ``(3, 64, 64)`` float32 in [0, 1] and what is taught about it."""

    image: np.ndarray
    scene: Scene
    lessons: list[Lesson]


@dataclass
class Examples:
    """Endless examples: new scenes, and pictures of the train split that a generator or an autoencoder made.

    ``made`` are kept pictures (n, 3, 64, 64) uint8 with what each shows and what it was made for.
    """

    made: np.ndarray
    scenes: list[Scene]
    requests: list[Request]
    rng: np.random.Generator
    made_share: float = 0.4

    def __post_init__(self) -> None:
        seen = [i for i, scene in enumerate(self.scenes) if not shows_unseen_color(scene)]
        self.made, self.scenes, self.requests = (
            self.made[seen],
            [self.scenes[i] for i in seen],
            [self.requests[i] for i in seen],
        )

    def draw(self, batch: int, course: Course) -> list[Shown]:
        """Draw the next batch."""
        shown = []
        for _ in range(batch):
            if course.unseen and self.rng.random() < course.unseen:
                scene, request = sample_described(self.rng, "heldout")
                lessons = draw_lessons(scene, request, self.rng, course.judging, "any")
                shown.append(Shown(render(scene, self.rng), scene, lessons))
                continue
            if self.rng.random() < self.made_share:
                at = int(self.rng.integers(len(self.made)))
                scene, request = self.scenes[at], self.requests[at]
                image = self.made[at].astype(np.float32) / 255
            else:
                scene, request = sample_described(self.rng, "train")
                image = render(scene, self.rng)
            shown.append(Shown(image, scene, draw_lessons(scene, request, self.rng, course)))
        return shown
