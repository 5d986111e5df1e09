"""What outputs are like, against closed forms."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from mmalign.core.types import Audio
from mmalign.evaluation.output_statistics import distinct_share, output_statistics


def test_pictures_have_the_value_and_saturation_of_hsv() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    measured = output_statistics("image", pictures)
    for i in range(2):
        hsv = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pictures[i].reshape(3, -1).T])
        assert measured["saturation"][i] == pytest.approx(hsv[:, 1].mean())
        assert measured["brightness"][i] == pytest.approx(hsv[:, 2].mean())


def test_a_black_picture_has_no_saturation() -> None:
    assert output_statistics("image", np.zeros((1, 3, 2, 2), np.uint8))["saturation"][0] == 0


def test_loudness_of_a_sine_and_of_silence_within_the_mask() -> None:
    sine = torch.sin(2 * torch.pi * 100 * torch.arange(8_000) / 8_000)
    samples = torch.stack([sine, torch.zeros(8_000), sine * (torch.arange(8_000) < 4_000)])[:, None]
    mask = torch.ones(3, 8_000, dtype=torch.bool)
    mask[2, 4_000:] = False
    measured = output_statistics("audio", Audio(samples, 8_000, mask))
    np.testing.assert_allclose(measured["loudness"], [-3.0103, -100, -3.0103], atol=1e-3)
    assert measured["seconds"].tolist() == [1, 1, 0.5]


def test_words_and_texts_that_differ() -> None:
    assert output_statistics("text", ["a b  c", ""])["words"].tolist() == [3, 0]
    assert output_statistics("text", []) == {}
    assert distinct_share(["A  cat", "a cat", "two"]) == pytest.approx(2 / 3) and distinct_share([]) == 1
