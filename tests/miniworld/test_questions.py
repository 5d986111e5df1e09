"""Questions about scenes: written, read back, and answered as the scene's own facts say."""

from collections import Counter

import numpy as np
import pytest

from mmalign.miniworld.compositions import unseen_clause, unseen_compositions
from mmalign.miniworld.grammar import hard_negatives, sample_request, sample_scene
from mmalign.miniworld.language import CaptionError, Clause, Description, Group, holds, parse
from mmalign.miniworld.questions import answer, ask, key_questions, parse_question, questions_of, where
from mmalign.miniworld.scenes import Scene, Thing
from mmalign.miniworld.verifier import UNKNOWN
from mmalign.miniworld.vlm_examples import draw_question, likely_questions

TWO = Scene((Thing("circle", "red", "small", 10, 30), Thing("star", "blue", "large", 45, 32)))


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("Is there a circle?", True),
        ("Is there a small red circle?", True),
        ("Is there a large red circle?", False),
        ("Is there exactly one blue star?", True),
        ("Are there exactly two stars?", False),
        ("Are there exactly two things?", True),
        ("Is there exactly one thing?", False),
        ("Is the circle left of the star?", True),
        ("Is the blue star right of the red circle?", True),
        ("Is the circle above the star?", False),
        ("Is the cross left of the star?", False),
    ],
)
def test_questions_mean_what_they_say(text: str, true: bool) -> None:
    question = parse_question(text)
    assert question.text == text and answer(question, TWO) is true
    assert parse_question(f"  {text.lower().rstrip('?')}") == question


def test_every_clause_of_a_request_is_a_question_and_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        request = sample_request(rng)
        scene = sample_scene(request, rng)
        asked = questions_of(request)
        assert [parse_question(question.text).clause for question in asked] == list(request.clauses)
        for other in (request, *hard_negatives(request, 2, rng, scene)):
            assert [answer(question, scene) for question in questions_of(other)] == holds(scene, other)


def test_key_questions_come_behind_their_parents_and_are_all_true_of_the_request() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        request = sample_request(rng)
        scene = sample_scene(request, rng)
        steps = key_questions(request)
        assert all(answer(question, scene) for question, _ in steps)
        assert all(parent < place for place, (_, parents) in enumerate(steps) for parent in parents)
        assert set(questions_of(request)) <= {question for question, _ in steps}
    texts = [question.text for question, _ in key_questions(parse("a small red circle left of a star"))]
    assert texts == [
        "Is there a circle?",
        "Is there a red circle?",
        "Is there a small red circle?",
        "Is there exactly one small red circle?",
        "Is there a star?",
        "Is there exactly one star?",
        "Are there exactly two things?",
        "Is the small red circle left of the star?",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Is there a red dog?", "cannot read"),
        ("Is there exactly two stars?", "write 'Are there exactly two stars"),
        ("", "cannot read '': questions are"),
    ],
)
def test_what_is_no_question_is_refused(text: str, why: str) -> None:
    with pytest.raises(CaptionError, match=why):
        parse_question(text)


def test_things_are_asked_for_by_number() -> None:
    kind = Description("cross", "black")
    assert where(Group(1, kind)) == "Where is the black cross?"
    assert where(Group(3, kind)) == "Where are the black crosses?"
    assert ask(Clause("count", 3, kind), some=True).text == "Is there a black cross?"


def test_drawn_questions_are_balanced_and_name_nothing_unseen() -> None:
    rng = np.random.default_rng(2)
    answers: Counter[object] = Counter()
    tests: Counter[object] = Counter()
    for _ in range(150):
        request = sample_request(rng, "train")
        scene = sample_scene(request, rng, seen_only=True)
        near = likely_questions(request, rng)
        for _ in range(4):
            question = draw_question(scene, near, rng)
            assert not unseen_clause(question.clause)
            answers[answer(question, scene)] += 1
            tests["some" if question.some else question.clause.test] += 1
    assert 0.42 < answers[True] / answers.total() < 0.58
    assert min(tests[name] for name in ("some", "count", "total", "relation")) > 40


def test_odd_pictures_can_be_asked_about() -> None:
    rng = np.random.default_rng(3)
    for things in ((), (Thing(UNKNOWN, UNKNOWN, UNKNOWN, 5, 5),), TWO.things * 3):
        for _ in range(10):
            question = draw_question(Scene(things), [], rng)
            assert isinstance(answer(question, Scene(things)), bool)


def test_a_clause_is_unseen_where_its_request_is() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        request = sample_request(rng)
        assert any(map(unseen_clause, request.clauses)) == bool(unseen_compositions(request))
