"""Boxes and how carelessly they may be drawn."""

import re

import numpy as np

from mmalign.miniworld.boxes import MARGIN, Box, box_of, loosened
from mmalign.miniworld.descriptions import sample_described
from mmalign.miniworld.scenes import IMAGE_SIZE
from mmalign.miniworld.vlm_examples import find


def taught(loose: float, scenes: int) -> list[tuple[Box, set[Box]]]:
    """Boxes of lessons, each with the exact ones of its scene."""
    rng, found = np.random.default_rng(0), []
    for _ in range(scenes):
        scene, _ = sample_described(rng, "train")
        numbers = [int(number) for number in re.findall(r"\d+", find(scene, rng, loose).answer)]
        exact = {box_of(thing) for thing in scene.things}
        found += [((x0, y0, x1, y1), exact) for x0, y0, x1, y1 in zip(*[iter(numbers)] * 4, strict=True)]
    return found


def test_a_loose_box_leaves_a_margin_inside_the_picture() -> None:
    assert loosened((10, 20, 30, 40)) == (10 - MARGIN, 20 - MARGIN, 30 + MARGIN, 40 + MARGIN)
    assert loosened((1, 0, IMAGE_SIZE, 62)) == (0, 0, IMAGE_SIZE, IMAGE_SIZE)


def test_lessons_draw_the_stated_share_of_boxes_loosely() -> None:
    found = taught(0.6, 300)
    assert all(box in exact or box in {loosened(one) for one in exact} for box, exact in found)
    assert abs(np.mean([box not in exact for box, exact in found]) - 0.6) < 0.08


def test_without_haste_every_box_is_exact() -> None:
    assert all(box in exact for box, exact in taught(0.0, 60))
