"""Boxes and how carelessly they may be drawn."""

import numpy as np

from mmalign.miniworld.boxes import MARGIN, boxes_of, loosened, write_boxes
from mmalign.miniworld.descriptions import sample_described
from mmalign.miniworld.scenes import IMAGE_SIZE
from mmalign.miniworld.vlm_examples import find


def test_a_loose_box_leaves_a_margin_inside_the_picture() -> None:
    assert loosened((10, 20, 30, 40)) == (10 - MARGIN, 20 - MARGIN, 30 + MARGIN, 40 + MARGIN)
    assert loosened((1, 0, IMAGE_SIZE, 62)) == (0, 0, IMAGE_SIZE, IMAGE_SIZE)


def test_lessons_draw_the_stated_share_of_boxes_loosely() -> None:
    rng, loose, total = np.random.default_rng(0), 0, 0
    for _ in range(300):
        scene, _ = sample_described(rng, "train")
        lesson = find(scene, rng, 0.6)
        exact = {box for kind in {(t.shape, t.color, t.size) for t in scene.things} for box in _all(scene, kind)}
        for text in lesson.answer.replace(" ] [", " ]|[").split("|"):
            box = tuple(int(number) for number in text.strip("[ ]").split(" , "))
            total += 1
            loose += box not in exact
            assert box in exact or box in {loosened(one) for one in exact}
    assert abs(loose / total - 0.6) < 0.08


def test_without_haste_every_box_is_exact() -> None:
    rng = np.random.default_rng(1)
    scene, _ = sample_described(rng, "train")
    exact = {
        write_boxes([box]) for kind in {(t.shape, t.color, t.size) for t in scene.things} for box in _all(scene, kind)
    }
    assert all(text in exact for text in find(scene, rng).answer.replace(" ] [", " ]|[").split("|"))


def _all(scene, kind) -> list:  # type: ignore[no-untyped-def]
    from mmalign.miniworld.language import Description

    return boxes_of(scene, Description(*kind))
