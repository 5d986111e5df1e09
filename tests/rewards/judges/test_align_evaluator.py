"""Key points: their arithmetic by hand, their data, and the whole reward on a judge of the real class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmalign
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded
from mmalign.rewards.functional import gated, group_means, key_point_scores
from mmalign.rewards.models.asking import Answers
from mmalign.rewards.points import make_source, point_sources
from mmalign.rewards.points._key_points import GROUPS, POINTS, KeyPoint, point_named, read_key_points
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.doubles import Answering

SAID = {"yes": "good", "no": "bad", "least_mass": 0.0}
NAN = float("nan")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_vlm(tmp_path_factory.mktemp("judge") / "llava", "llava", chat=True))


def evaluator(checkpoint: str, **options: Any) -> Any:
    return mmalign.load_reward("align_evaluator", checkpoint=checkpoint, **{"judge": SAID, **options})


def answering(reward: Any, margins: dict[str, float | None], too_long: bool = False) -> list[list[Prompt]]:
    """Let the judge answer by the last word of a question; None: it has no answer. Gives what it was asked."""
    batches = []

    def judge(questions: list[Prompt]) -> Answers:
        batches.append(questions)
        answers = [margins[q.text.split()[-1]] for q in questions]
        why = ["" if m is not None else "the judge is silent" for m in answers]
        value = torch.tensor([NAN if m is None else m for m in answers])
        return Answers(value, torch.ones(len(answers)), why, [m is None and too_long for m in answers])

    reward.ask = Answering(judge)
    return batches


def point(name: str, word: str, **more: Any) -> dict[str, Any]:
    return {"point": name, "question": f"is it {word}", **more}


def odds(p: float) -> float:
    return math.log(p / (1 - p)) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)


def shown(*points: Any) -> Rollout:
    images = torch.rand(len(points), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = [Prompt(f"p{i}", meta={} if p is None else {"key_points": p}) for i, p in enumerate(points)]
    return Rollout(prompts, images, torch.arange(len(points)))


FIVE = [
    point("Counting", "one"),
    point("Size", "two"),
    point("Similarity", "three"),
    point("Text Rendering", "four"),
    point("Text Layout", "five"),
]
MARGINS = {"one": odds(0.9), "two": odds(0.8), "three": odds(0.2), "four": odds(1.0), "five": odds(0.5)}


# the arithmetic ----------------------------------------------------------------------------------------------------


def test_the_24_key_points_are_those_of_the_paper() -> None:
    assert [len(points) for points in GROUPS.values()] == [3, 5, 6, 6, 2, 2] and len(POINTS) == 24


def test_golden_readings_of_three_groups() -> None:
    """Groups {.9, .8}, {.2}, {1, .5}: means .85, .2, .75."""
    value, group = torch.tensor([0.9, 0.8, 0.2, 1.0, 0.5]), torch.tensor([0, 0, 2, 4, 4])
    ones, row = torch.ones(5), torch.zeros(5, dtype=torch.long)
    means = group_means(value, row, group, ones, (1, 6))[0]
    assert means[[0, 2, 4]].tolist() == pytest.approx([0.85, 0.2, 0.75]) and means[[1, 3, 5]].isnan().all()
    readings = key_point_scores(value, row, group, ones, torch.ones(6), 1)
    want = {"groups": 0.60, "flat": 0.68, "all": 0.5908, "hard": 2 / 3}
    assert {name: v.item() for name, v in readings.items()} == pytest.approx(want, abs=5e-5)


def test_weights_shares_and_missing_answers() -> None:
    value = torch.tensor([1.0, 0.0, NAN, 0.5])
    row, group = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 0])
    readings = key_point_scores(value, row, group, torch.tensor([1.0, 1.0, 5.0, 2.0]), torch.tensor([3.0, 1.0]), 3)
    assert readings["groups"][:2].tolist() == pytest.approx([0.75, 0.5]) and readings["groups"][2].isnan()
    assert readings["flat"][:2].tolist() == pytest.approx([0.5, 0.5]) and readings["all"][0] == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_readings_are_means_whatever_the_points(points: list[tuple[float, int, int]]) -> None:
    """Against sums by hand in Python's floats."""
    value, group, row = (torch.tensor(list(column)) for column in zip(*points, strict=True))
    value = value.float()
    readings = key_point_scores(value, row, group, torch.ones(len(points)), torch.ones(6), 4)
    for number in range(4):
        own = [(float(v), g) for v, g, r in zip(value, group.tolist(), row.tolist(), strict=True) if r == number]
        if not own:
            assert all(v[number].isnan() for v in readings.values())
            continue
        groups = sorted({g for _, g in own})
        means = [sum(v for v, g in own if g == one) / sum(g == one for _, g in own) for one in groups]
        assert readings["groups"][number].item() == pytest.approx(sum(means) / len(means), abs=1e-5)
        assert readings["flat"][number].item() == pytest.approx(sum(v for v, _ in own) / len(own), abs=1e-5)
        assert readings["all"][number].item() == pytest.approx(math.prod(v for v, _ in own) ** (1 / len(own)), abs=1e-4)


def test_gates_multiply_along_the_path() -> None:
    yes = torch.tensor([0.5, 0.8, 0.9, NAN, 1.0])
    probability = gated(yes, [(), (0,), (1,), (), (0, 3)])
    assert probability[:3].tolist() == pytest.approx([0.5, 0.4, 0.36]) and probability[3:].isnan().all()


# the reward --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reading", "want"), [("groups", 0.6), ("flat", 0.68), ("all", 0.5908), ("hard", 2 / 3)])
def test_the_value_is_the_reading_asked_for(checkpoint: str, reading: str, want: float) -> None:
    reward = evaluator(checkpoint, reading=reading, frame="{question}")
    answering(reward, MARGINS)
    scores = reward(shown(FIVE))
    assert scores.value.item() == pytest.approx(want, abs=5e-5)
    parts = {name: v.item() for name, v in scores.parts.items()}
    assert parts["visual"] == pytest.approx(0.85) and parts["text"] == pytest.approx(0.75)
    assert parts["counting"] == pytest.approx(0.9) and parts["similarity_relation"] == pytest.approx(0.2)
    assert parts["unanswered"] == 0 and "linguistic" not in parts and "negation" not in parts
    assert scores.confidence.item() == pytest.approx((0.8 + 0.6 + 0.6 + 1.0 + 0.0) / 5, abs=1e-5)


def test_polarity_gates_temperatures_and_shares(checkpoint: str) -> None:
    points = [
        point("counting", "hat"),
        point("state", "red", parent=0),
        point("negation", "dog", positive=False, weight=2),
    ]
    reward = evaluator(checkpoint, frame="{question}", temperatures={"state": 2.0}, shares={"linguistic": 2.0})
    answering(reward, {"hat": odds(0.6), "red": 2 * odds(0.9), "dog": odds(0.3)})
    scores = reward(shown(points))
    assert scores.parts["state"].item() == pytest.approx(0.54, abs=1e-5)
    assert scores.parts["negation"].item() == pytest.approx(0.7, abs=1e-5)
    assert scores.value.item() == pytest.approx((0.6 + 0.54 + 2 * 0.7) / 4, abs=1e-5)


def test_an_answer_that_is_missing_is_left_out_and_none_at_all_is_an_error(checkpoint: str) -> None:
    reward = Guarded("align", evaluator(checkpoint, frame="{question}"), failed_share=1.0)
    answering(reward.reward, {"one": odds(0.9), "two": None})
    both, silent = [point("counting", "one"), point("size", "two")], [point("size", "two")]
    child = [point("counting", "one"), point("size", "two"), point("negation", "one", parent=1)]
    scores = reward(shown(both, silent, [], None, child))
    wanted = [Status.OK, Status.ERROR, Status.NOT_APPLICABLE, Status.NOT_APPLICABLE, Status.OK]
    assert scores.status.tolist() == wanted
    assert scores.value[0].item() == pytest.approx(0.9) and scores.value[1:4].isnan().all()
    assert scores.parts["unanswered"][0] == 0.5 and scores.parts["unanswered"][4].item() == pytest.approx(2 / 3)
    assert scores.value[4].item() == pytest.approx(0.9) and "the judge is silent" in scores.info[1]
    assert "no 'key_points'" in scores.info[3]


def test_texts_are_judged_by_reading_them(checkpoint: str) -> None:
    reward = evaluator(checkpoint)
    batches = answering(reward, {"no.": 0.0})
    prompts = [Prompt("q", meta={"key_points": [point("counting", "{output} so")]})] * 2
    scores = reward(Rollout(prompts, ["a {prompt} b", " "], torch.arange(2)))
    assert (
        batches[0][0].text == "Text:\na {prompt} b\n\nis it {output} so Answer yes or no." and not batches[0][0].media
    )
    assert scores.status.tolist() == [Status.OK, Status.PARSE_FAIL] and scores.value.tolist() == [0.5, 0.0]
    with pytest.raises(CapabilityError, match=r"frame: shows the judge none of the text it is about; name \{output\}"):
        evaluator(checkpoint, frame="{question}?")(Rollout(prompts, ["a", "b"], torch.arange(2)))
    answering(reward, {"no.": None}, too_long=True)
    endless = reward(Rollout(prompts[:1], ["a"], torch.arange(1)))
    assert endless.status.tolist() == [Status.PARSE_FAIL] and endless.value.item() == 0


def test_a_real_judge_answers_each_question_by_itself(checkpoint: str) -> None:
    reward = evaluator(checkpoint, frame="say {question}")
    lists = [
        [point("counting", "a"), point("size", "b"), point("state", "red", parent=0)],
        [point("size", "cube")],
        [point("negation", "two", positive=False), point("size", "b")],
    ]
    rollout = shown(*lists)
    scores = reward(rollout)
    for row, (points, image) in enumerate(zip(lists, rollout.output, strict=True)):
        alone = [reward.ask([Prompt(f"say {p['question']}", {"image": image})]).margin.sigmoid() for p in points]
        yes = [
            float(p) if point.get("positive", True) else 1 - float(p) for p, point in zip(alone, points, strict=True)
        ]
        if row == 0:
            yes[2] *= yes[0]
            want = ((yes[0] + yes[1]) / 2 + yes[2]) / 2
        else:
            want = sum(yes) / len(yes)
        assert scores.value[row].item() == pytest.approx(want, abs=1e-5)


# the data ----------------------------------------------------------------------------------------------------------


def test_names_as_data_sets_write_them() -> None:
    written = {
        "Full-body Action": "full_body_action",
        "Interaction w/o Contact": "interaction_without_contact",
        "Similarity Relation": "similarity_relation",
        "Comparative": "comparative_relation",
        "text rendering": "text_rendering",
    }
    assert {name: point_named(name) for name in written} == written
    with pytest.raises(
        ValueError, match=r"'Countng' is none of the 24 key points. Did you mean 'counting'\? Known: neg"
    ):
        point_named("Countng")


def test_every_fault_of_the_data_names_its_place() -> None:
    faults = {
        r"k: expected a list of key points, found str": "x",
        r"k\[0\]: expected an object with point and question, found int": [3],
        r"k\[0\]: unknown field 'points'; known: point, question": [{**FIVE[0], "points": 1}],
        r"k\[0\]: needs a point and a question, both texts": [{"point": "size", "question": "  "}],
        r"k\[1\]: parent is the number of an earlier point, found 1": [FIVE[0], {**FIVE[1], "parent": 1}],
        r"k\[0\]: positive is true or false, found 'no'": [{**FIVE[0], "positive": "no"}],
        r"k\[0\]: weight is a positive number, found nan": [{**FIVE[0], "weight": NAN}],
        r"k\[0\]: 'colour' is none of the 24": [point("colour", "x")],
    }
    for sentence, value in faults.items():
        with pytest.raises(ValueError, match=sentence):
            read_key_points(value, "k")


def test_data_at_fault_is_an_error_of_its_row(checkpoint: str) -> None:
    reward = evaluator(checkpoint, frame="{question}")
    answering(reward, MARGINS)
    scores = reward(shown([point("colour", "one")], FIVE))
    assert scores.status.tolist() == [Status.ERROR, Status.OK] and "none of the 24" in scores.info[0]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*"ab", "point", "parent"]), inner),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("point", "question", "parent", "weight"), _ANY))))
def test_any_data_is_key_points_or_a_value_error(value: Any) -> None:
    try:
        points = read_key_points(value, "k")
    except ValueError as error:
        assert str(error).startswith("k")
        return
    assert all(isinstance(p, KeyPoint) and all(q < n for q in p.parents) for n, p in enumerate(points))


def test_two_columns_of_a_published_set() -> None:
    source = make_source({"name": "described"})
    meta = {"prompt_points": ["Counting", "Negation"], "prompt_points_des": ["three cats", "no dog "]}
    points = source(Prompt("x", meta=meta))
    assert [p.point for p in points] == ["counting", "negation"] and source.needs == tuple(meta)
    assert points[0].question == "Is the following true of this picture? three cats"
    with pytest.raises(ValueError, match="1 in 'prompt_points' but 2 in 'prompt_points_des'"):
        source(Prompt("x", meta={**meta, "prompt_points": ["Counting"]}))
    with pytest.raises(ValueError, match="are lists of texts"):
        source(Prompt("x", meta={**meta, "prompt_points": "Counting"}))
    with pytest.raises(ConfigError, match=r"points.question: 'x' has no place for the \{description\}"):
        make_source({"name": "described", "question": "x"})


def test_every_fault_of_the_options_is_told(checkpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluator(checkpoint, temperature=0.0, temperatures={"countng": 1.0}, shares={"texts": 2.0, "text": -1.0})
    text = str(caught.value)
    assert (
        "temperature: must be above 0 (got 0.0)" in text and "temperatures.countng: no key point is called so" in text
    )
    assert "shares.texts: no group is called so. Did you mean 'text'?" in text and "shares.text: -1.0" in text
    with pytest.raises(ConfigError, match=r"frame: 'yes\?' asks the same of every row; name \{question\}"):
        evaluator(checkpoint, frame="yes?")
    with pytest.raises(ConfigError, match=r"points.name: no point_source is called 'colum'. Did you mean 'column'"):
        evaluator(checkpoint, points={"name": "colum"})
    assert point_sources.names() and evaluator(checkpoint, points={"name": "described"}).needs[0] == "prompt_points"


# scenes ------------------------------------------------------------------------------------------------------------


def test_scenes_ask_a_question_per_clause_of_the_original_request() -> None:
    source = make_source("scenes")
    rewrite = Prompt("one blue quad next to it", meta={"request": "two red circles and a blue square"})
    questions = [(p.point, p.question, p.parents) for p in source(rewrite)]
    assert questions == [
        ("cross_entity_binding", "Are there exactly two red circles?", ()),
        ("cross_entity_binding", "Is there exactly one blue square?", ()),
        ("counting", "Are there exactly three things?", ()),
    ]
    layout = source(Prompt("a circle above a star"))
    assert [p.point for p in layout] == ["counting", "counting", "counting", "entity_layout"]
    assert layout[-1].question == "Is the circle above the star?"
    assert source(Prompt("a melancholy Tuesday")) is None and source.needs == ()


def test_fine_questions_of_scenes_stand_behind_their_parents() -> None:
    points = make_source({"name": "scenes", "fine": True})(Prompt("a small red circle"))
    assert [(p.point, p.parents) for p in points] == [
        ("counting", ()),
        ("attribute_consistency", (0,)),
        ("size", (1,)),
        ("size", (2,)),
        ("counting", ()),
    ]
    relation = make_source({"name": "scenes", "fine": True})(Prompt("a red circle above a star"))[-1]
    assert relation.point == "entity_layout" and len(relation.parents) == 2


@pytest.mark.parametrize("by_attribute", [False, True])
def test_a_judge_who_is_right_agrees_with_the_verifier(checkpoint: str, by_attribute: bool) -> None:
    """The exact answers in the model's place: 1 where the picture fulfils the request, less where it does not."""
    from mmalign.miniworld.grammar import sample_request, sample_scene
    from mmalign.miniworld.questions import answer, parse_question
    from mmalign.miniworld.scenes import render
    from mmalign.miniworld.verifier import read_scene

    rng = np.random.default_rng(0)
    requested, shown = ([sample_request(rng, "heldout") for _ in range(12)] for _ in range(2))
    seen = [sample_scene(a if i % 2 else s, rng) for i, (a, s) in enumerate(zip(requested, shown, strict=True))]
    images = torch.from_numpy(np.stack([render(scene, rng) for scene in seen])).float()
    rollout = Rollout([Prompt(request.text) for request in requested], images, torch.arange(12))
    reward = evaluator(checkpoint, points={"name": "scenes", "fine": by_attribute})

    def judge(questions: list[Prompt]) -> Answers:
        texts = [q.text.removesuffix(" Answer yes or no.") for q in questions]
        scenes = [read_scene(question.media["image"].numpy()) for question in questions]
        true = [answer(parse_question(text), scene) for text, scene in zip(texts, scenes, strict=True)]
        margin = torch.tensor([20.0 if yes else -20.0 for yes in true])
        return Answers(margin, torch.ones(len(true)), [""] * len(true), [False] * len(true))

    reward.ask = Answering(judge)
    truth = mmalign.load_reward("verifier")(rollout).value
    value = reward(rollout).value
    assert torch.equal((value > 0.999).float(), truth) and 0 < truth.sum() < 12
    rewritten = Rollout(
        [Prompt("x", meta={"request": request.text}) for request in requested], images, torch.arange(12)
    )
    torch.testing.assert_close(reward(rewritten).value, value)
