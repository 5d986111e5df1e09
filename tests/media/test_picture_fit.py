"""Scaling against Pillow's, geometry against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mmalign.core.errors import ConfigError
from mmalign.media.picture_fit import Fit, bucket_of, bucket_sizes, fitted, ground_of, placement_of

SIDES = st.integers(1, 97)
FITS = st.sampled_from(["cover", "contain", "stretch"])


@pytest.mark.parametrize("original", [(300, 200), (64, 64), (31, 97), (512, 40)])
@pytest.mark.parametrize("size", [(64, 64), (96, 48), (40, 80)])
def test_stretched_pictures_are_pillow_s(original: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = (smooth(*original) * 255).round().astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float32)
    made = fitted(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255, size, "stretch")
    assert np.abs(made.numpy().transpose(1, 2, 0) * 255 - expected).max() < 1.6  # Pillow rounds to 8 bits twice


@pytest.mark.parametrize("original", [(300, 200), (200, 300), (333, 334), (40, 512)])
def test_covering_is_what_pillow_s_fit_shows(original: tuple[int, int]) -> None:
    """`ImageOps.fit` crops before it scales, by fractions of pixels: equal up to half a pixel."""
    pixels = (smooth(*original) * 255).round().astype(np.uint8)
    expected = np.asarray(ImageOps.fit(Image.fromarray(pixels), (64, 64), Image.Resampling.BICUBIC), dtype=np.float32)
    made = fitted(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255, (64, 64), "cover")
    assert np.abs(made.numpy().transpose(1, 2, 0) * 255 - expected).mean() < 3


def test_detail_that_the_size_cannot_hold_becomes_its_mean() -> None:
    checks = torch.zeros(3, 256, 256)
    checks[:, ::2, 1::2] = checks[:, 1::2, ::2] = 1
    assert (fitted(checks, (32, 32), "cover") - 0.5).abs().max() < 0.02


@given(SIDES, SIDES, SIDES, SIDES, FITS)
def test_a_picture_comes_to_the_size_asked_for(high: int, wide: int, height: int, width: int, fit: Fit) -> None:
    picture = torch.rand(3, high, wide)
    made = fitted(picture, (height, width), fit, (1.0, 0.0, 0.5))
    assert made.shape == (3, height, width)
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    if (high, wide) == (height, width):
        assert torch.equal(made, picture)


@given(SIDES, SIDES, SIDES, SIDES)
def test_covering_leaves_no_ground_and_containing_crops_nothing(high: int, wide: int, height: int, width: int) -> None:
    cover, contain = (
        placement_of((high, wide), (height, width), "cover"),
        placement_of((high, wide), (height, width), "contain"),
    )
    assert cover.scaled[0] >= height and cover.scaled[1] >= width and min(cover.corner) >= 0
    assert contain.scaled[0] <= height and contain.scaled[1] <= width and max(contain.corner) <= 0
    assert contain.cropped == 0 and 0 <= cover.cropped < 1
    assert height in (cover.scaled[0], contain.scaled[0]) or width in (cover.scaled[1], contain.scaled[1])


def test_bands_are_of_the_ground_and_the_picture_lies_between_them() -> None:
    made = fitted(torch.zeros(3, 10, 20), (20, 20), "contain", ground_of("#ff8000"))
    assert torch.allclose(made[:, 0, 0], torch.tensor([1.0, 128 / 255, 0.0]))
    assert float(made[:, 5:15].max()) == 0 and float(made[0, :5].min()) == float(made[0, 15:].min()) == 1


@pytest.mark.parametrize("colour", ["whiteish", "", "#12", "rgb(1"])
def test_what_is_no_colour_is_refused(colour: str) -> None:
    with pytest.raises(ConfigError, match="is no colour"):
        ground_of(colour)


@pytest.mark.parametrize(("size", "multiple"), [((512, 512), 64), ((1024, 1024), 64), ((64, 64), 8), ((96, 64), 16)])
def test_buckets_keep_the_area_and_every_shape_has_a_near_one(size: tuple[int, int], multiple: int) -> None:
    sizes = bucket_sizes(size, multiple)
    assert size in sizes
    for height, width in sizes:
        assert height % multiple == width % multiple == 0
        assert height * width <= size[0] * size[1]
        assert 0.5 <= width / height <= 2
    for aspect in np.geomspace(0.5, 2, 41):
        height, width = bucket_of((1000, round(1000 * aspect)), sizes)
        assert abs(math.log(width / height / aspect)) < 0.35


def test_the_bucket_of_a_picture_of_its_shape() -> None:
    sizes = bucket_sizes((512, 512), 64)
    assert bucket_of((3000, 3000), sizes) == (512, 512)
    assert bucket_of((1000, 1500), sizes) == (384, 640)
    assert bucket_of((1500, 1000), sizes) == (640, 384)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3) of slow waves."""
    y, x = np.mgrid[:height, :width] / 40
    return np.stack([np.sin(y + x), np.cos(2 * y - x), np.sin(x)], -1) * 0.4 + 0.5
