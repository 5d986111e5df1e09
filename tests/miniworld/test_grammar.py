import numpy as np
import pytest

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.compositions import UNSEEN_COLORED, shows_unseen_color, unseen_compositions
from mmalign.miniworld.grammar import (
    CaptionError,
    hard_negatives,
    holds,
    parse,
    restatements,
    sample_request,
    sample_scene,
)
from mmalign.miniworld.language import RELATIONS, TASKS
from mmalign.miniworld.scenes import COLORS, SHAPES, Scene, Thing
from mmalign.miniworld.splits import distinct_requests, heldout_requests, train_requests


@pytest.mark.parametrize("task", TASKS)
def test_captions_parse_back_exactly(task: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        request = sample_request(rng, task=task)
        assert request.task == task
        assert parse(request.text) == request
        assert parse(f"  {request.text.upper()}. ") == request


@pytest.mark.parametrize(
    "text",
    [
        "",
        "circle",
        "a red",
        "a circle circle",
        "five stars",
        "two star",
        "a stars",
        "a red circle left a blue square",
        "a circle and a red circle",
        "two circles left of a star",
        "three circles and two stars",
        "a red orange circle",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(CaptionError):
        parse(text)


def test_truth_scenes_fulfil_their_request_and_only_one_relation_holds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        request = sample_request(rng)
        scene = sample_scene(request, rng)
        assert all(holds(scene, request))
        if request.relation:
            others = [request.text.replace(request.relation, relation) for relation in RELATIONS]
            assert sum(all(holds(scene, parse(other))) for other in others) == 1


def test_counts_are_exact_and_totals_count_everything() -> None:
    scene = Scene((Thing("star", "red", "small", 10, 10), Thing("star", "red", "large", 40, 40)))
    assert holds(scene, parse("two red stars")) == [True, True]
    assert holds(scene, parse("a large red star")) == [True, False]
    assert holds(scene, parse("three red stars")) == [False, False]


def test_hard_negatives_are_false_distinct_and_one_word_away_where_possible() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        request = sample_request(rng, "heldout")
        scene = sample_scene(request, rng)
        negatives = hard_negatives(request, 31, rng, scene)
        assert len({negative.text for negative in negatives}) == 31
        assert not any(all(holds(scene, negative)) for negative in negatives)
        for negative in hard_negatives(request, 5, rng):
            assert not all(holds(scene, negative))


def test_restatements_are_true() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        request = sample_request(rng)
        scene = sample_scene(request, rng)
        assert all(all(holds(scene, other)) for other in restatements(request, scene))


def test_splits_share_no_composition() -> None:
    train, heldout = train_requests(2000), heldout_requests(400)
    assert not any(unseen_compositions(request) for request in train)
    assert all(unseen_compositions(request) for request in heldout)
    kinds = [kind for request in train for _, kind in request.groups]
    assert {kind.shape for kind in kinds} == set(SHAPES)
    assert {kind.color for kind in kinds} >= set(COLORS)
    assert {request.task for request in train} == set(TASKS)
    assert not UNSEEN_COLORED & {(kind.shape, kind.color) for kind in kinds}
    assert train_requests(50, seed=1) == train_requests(50, seed=1) != train_requests(50, seed=2)


def test_training_scenes_show_no_held_out_pair() -> None:
    rng = np.random.default_rng(4)
    for request in train_requests(300, seed=5):
        assert not shows_unseen_color(sample_scene(request, rng, seen_only=True))


@pytest.mark.parametrize(("split", "n"), [("train", 1000), ("heldout", 256)])
def test_prompt_files_are_what_the_splits_give(split: str, n: int) -> None:
    lines = asset_path(f"prompts/scenes_{split}.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [request.text for request in distinct_requests(split, n)]
