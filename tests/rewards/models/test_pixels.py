"""The preprocessing against the PIL pipelines it stands in for."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.core.errors import DataError
from mmalign.rewards.models.pixels import PixelPreprocess


def smooth_picture(height, width, seed=0):
    """Random low frequencies, as 8-bit PIL and as the same values in float."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 7, generator=rng)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    eight = (x[0] * 255).round().to(torch.uint8)
    return Image.fromarray(eight.permute(1, 2, 0).numpy()), eight[None].float() / 255


SHAPES = [(32, 32), (64, 64), (47, 80), (91, 50), (20, 30), (32, 35), (37, 32), (39, 32)]  # odd rests, both halves


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equals_open_clips_pil_pipeline(shape, mode, interpolation):
    from open_clip.transform import image_transform

    if mode == "longest" and interpolation == "bilinear":
        pytest.skip("one interpolation of this mode is enough")
    config = {
        "size": 32,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.3, 0.25, 0.2),
        "interpolation": interpolation,
        "resize_mode": mode,
    }
    peer = image_transform(32, False, config["mean"], config["std"], mode, interpolation)
    ours = PixelPreprocess.of_open_clip(config)
    picture, pixels = smooth_picture(*shape)
    difference = (ours(pixels)[0] - peer(picture)).abs() * torch.tensor(config["std"])[:, None, None]
    assert ours(pixels).shape == (1, 3, 32, 32)
    assert difference.max() < 2 / 255 and difference.mean() < 0.5 / 255  # PIL rounds after each of its two passes


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers_processor(shape):
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    ours = PixelPreprocess.of_transformers(processor.to_dict(), "here")
    picture, pixels = smooth_picture(*shape)
    peer = processor(picture, return_tensors="pt")["pixel_values"]
    std = torch.tensor(processor.image_std)[:, None, None]
    assert ((ours(pixels) - peer).abs() * std).max() < 2 / 255


def test_squash_and_faults_of_transformers_configs():
    squash = PixelPreprocess.of_transformers({"size": {"height": 16, "width": 24}, "resample": 2}, "here")
    assert squash.resize == "squash" and squash(torch.rand(1, 3, 40, 40)).shape == (1, 3, 16, 24)
    with pytest.raises(DataError, match=r"here: resample 1 is not supported; known: 2 \(bilinear\), 3 \(bicubic\)"):
        PixelPreprocess.of_transformers({"size": 16, "resample": 1}, "here")
    with pytest.raises(DataError, match="only a crop of that size"):
        PixelPreprocess.of_transformers({"size": {"shortest_edge": 32}, "crop_size": 16}, "here")


def test_gradient_is_right_inside_the_range_and_alive_outside():
    prepare = PixelPreprocess(size=(4, 4))
    x = (torch.rand(1, 3, 6, 7, dtype=torch.float64) * 0.2 + 0.4).requires_grad_()
    assert torch.autograd.gradcheck(prepare, (x,))
    saturated = torch.full((1, 3, 4, 4), 1.3, requires_grad=True)
    prepare(saturated).sum().backward()
    assert saturated.grad.abs().min() > 0
    assert torch.allclose(prepare(saturated.detach()), prepare(torch.ones(1, 3, 4, 4)))


def test_same_size_is_only_normalised_and_the_digest_sees_every_setting():
    prepare = PixelPreprocess(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(prepare(x), x) and prepare(x.half()).dtype == torch.float32
    others = [
        PixelPreprocess(size=(8, 9)),
        PixelPreprocess(size=(8, 8), resize="squash"),
        PixelPreprocess(size=(8, 8), interpolation="bilinear"),
        PixelPreprocess(size=(8, 8), fill=1.0),
        prepare,
    ]
    assert len({p.digest for p in others}) == 5
    assert np.unique([p.digest for p in [prepare] * 2]).size == 1
