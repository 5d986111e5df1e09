"""Descriptions say all that a caption can; boxes lie around what was painted."""

import numpy as np
import pytest

from mmalign.miniworld.boxes import box_of, boxes_of, write_boxes
from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.descriptions import agreement, careless, describe, sample_described
from mmalign.miniworld.grammar import restatements, sample_request, sample_scene
from mmalign.miniworld.language import Description, holds, parse
from mmalign.miniworld.scenes import SHAPES, SIZES, Scene, Thing, render
from mmalign.miniworld.verifier import UNKNOWN, read_scene
from mmalign.rewards.parsing import boxes_in
from tests.rewards.asking import scored

SCENES = {
    "a small red circle left of a large blue star": [
        ("circle", "red", "small", 10, 30), ("star", "blue", "large", 45, 32)
    ],
    "a small red circle above a small red star": [("star", "red", "small", 30, 50), ("circle", "red", "small", 20, 20)],
    "two small red stars": [("star", "red", "small", 10, 10), ("star", "red", "small", 40, 40)],
    "two stars and a small red circle": [
        ("star", "red", "small", 10, 10), ("star", "blue", "large", 50, 10), ("circle", "red", "small", 50, 50)
    ],
    "two large crosses and a small red star": [
        ("cross", "red", "large", 10, 10), ("cross", "blue", "large", 50, 10), ("star", "red", "small", 50, 50)
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", list(SCENES))
def test_the_fullest_caption(text: str) -> None:
    told = describe(Scene(tuple(Thing(*row) for row in SCENES[text])))
    assert told is not None and told.text == text


def test_nothing_true_says_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = sample_scene(sample_request(rng), rng)
        told = describe(scene)
        assert told is not None and all(holds(scene, told)), scene
        longer = [more for more in restatements(told, scene) if len(more.text) > len(told.text)]
        assert not [more for more in longer if more.text.split()[:1] == told.text.split()[:1]], (told, longer)


def test_what_has_no_caption() -> None:
    odd = Thing(UNKNOWN, "red", UNKNOWN, 5, 5)
    three = tuple(Thing(shape, "red", "small", 5, 5) for shape in SHAPES[:3])
    assert describe(Scene(())) is None and describe(Scene((odd,))) is None and describe(Scene(three)) is None


@pytest.mark.parametrize(
    ("said", "right", "true", "told"),
    [
        ("a small red circle left of a large blue star", 1, 1, 1),
        ("a large blue star right of a small red circle", 1, 1, 1),
        ("a small red circle and a large blue star", 3 / 4, 1, 3 / 4),  # leaves out how they stand
        ("a circle and a star", 1 / 4, 1, 1 / 4),  # true, and says little
        ("a small red circle", 1 / 4, 1 / 2, 1 / 4),
        ("a small red circle above a large green star", 2 / 4, 2 / 4, 2 / 4),
        ("three crosses", 0, 0, 0),
    ],
)
def test_captions_are_compared_clause_by_clause(said: str, right: float, true: float, told: float) -> None:
    scene = Scene(tuple(Thing(*row) for row in SCENES["a small red circle left of a large blue star"]))
    full = describe(scene)
    assert full is not None and agreement(parse(said), scene, full) == pytest.approx((right, true, told))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_described_scenes_keep_to_their_split(split: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        scene, told = sample_described(rng, split)
        assert bool(unseen_compositions(told)) == (split == "heldout") and all(holds(scene, told))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_boxes_lie_around_the_painted_pixels(shape: str, size: str) -> None:
    for x, y in ((20.0, 31.5), (40.5, 25.0)):
        thing = Thing(shape, "black", size, x, y)
        dark = render(Scene((thing,)), np.random.default_rng(0)).mean(axis=0) < 0.45
        rows, columns = np.nonzero(dark)
        want = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(want - np.array(box_of(thing))).max() <= 1


def test_boxes_read_back_from_the_picture_are_those_of_the_scene() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        scene, _ = sample_described(rng, "train")
        read = read_scene(render(scene, rng))
        pairs = zip(sorted(map(box_of, scene.things)), sorted(map(box_of, read.things)), strict=True)
        assert all(np.abs(np.subtract(one, other)).max() <= 1 for one, other in pairs)


def test_the_iou_reward_reads_boxes_as_they_are_written() -> None:
    scene = Scene(tuple(Thing(*row) for row in SCENES["two small red stars"]))
    boxes = boxes_of(scene, Description("star"))
    text = write_boxes(boxes)
    assert len(boxes) == 2 and [found.values for found in boxes_in(text)] == boxes
    meta = {"boxes": [list(box) for box in boxes], "size": [64, 64]}
    assert scored("iou", (text, meta), (write_boxes(boxes[:1]), meta)).value.tolist() == [1.0, 0.5]


def test_careless_captions_say_less_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    shorter = 0
    for _ in range(100):
        _, told = sample_described(rng, "train")
        said = careless(told, rng, 0.6)
        assert [group.count for group in said.groups] == [group.count for group in told.groups]
        for less, more in zip(said.groups, told.groups, strict=True):
            assert less.kind.shape == more.kind.shape
            assert less.kind.color in (None, more.kind.color) and less.kind.size in (None, more.kind.size)
        shorter += len(said.text) < len(told.text)
        assert careless(told, rng, 0.0) == told
    assert shorter > 60
