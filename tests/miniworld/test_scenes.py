import numpy as np
import pytest

from mmalign.miniworld.scenes import COLORS, PALETTE, SHAPES, SIZES, Scene, Thing, coverage, render
from pipelines.miniworld.scenes.pictures import draw_pictures


def test_render_gives_images_in_range() -> None:
    image = render(Scene((Thing("star", "red", "large", 20.0, 30.5),)), np.random.default_rng(0))
    assert image.shape == (3, 64, 64) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_centre_pixel_has_the_colour_asked_for(shape: str, color: str) -> None:
    image = render(Scene((Thing(shape, color, "small", 32.0, 32.0),)), np.random.default_rng(1))
    assert np.abs(image[:, 32, 32] - PALETTE[color]).max() < 0.05


def test_half_pixel_shift_moves_the_centre_of_mass_by_half_a_pixel() -> None:
    columns = np.arange(coverage("circle", "small").shape[1])
    centres = [
        float((coverage("circle", "small", dx) * columns).sum() / coverage("circle", "small", dx).sum())
        for dx in (0.0, 0.5)
    ]
    assert centres[1] - centres[0] == pytest.approx(0.5, abs=0.02)


def test_shapes_and_sizes_differ_clearly() -> None:
    masks = [coverage(shape, size).ravel() for shape in SHAPES for size in SIZES]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert 2 * (a @ b) / (a @ a + b @ b) < 0.96


def test_pictures_are_deterministic() -> None:
    first, requests, _ = draw_pictures(64, seed=3)
    second, again, _ = draw_pictures(64, seed=3)
    assert (first == second).all() and requests == again
    assert not (draw_pictures(64, seed=4)[0] == first).all()
