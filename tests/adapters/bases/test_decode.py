"""Images and latents: scaled as the pipeline scales, differentiable, the same for any chunking, float32."""

from __future__ import annotations

import pytest
import torch

from mmalign.adapters.bases.diffusers_adapter import by_rows
from mmalign.adapters.bases.image_adapter import LatentImages
from mmalign.core.errors import MediaError
from tests.typecheck import unchecked

FAMILIES = ["sd", "sdxl", "sd3"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_the_finite_difference(name, make):
    adapter = make(name)
    adapter.loaded.pipeline.vae.double()
    images = LatentImages(adapter.loaded.pipeline.vae)
    x = torch.randn(1, *adapter.latent_shape, dtype=torch.float64, requires_grad=True)
    along = torch.randn(2, *x.shape[1:], dtype=torch.float64)[:1]
    weight = torch.randn_like(images._picture(x))

    def value(z):
        return (images._picture(z) * weight).sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    with torch.no_grad():
        difference = (value(x + 1e-5 * along) - value(x - 1e-5 * along)) / 2e-5
    torch.testing.assert_close((gradient * along).sum(), difference, rtol=1e-5, atol=1e-7)
    adapter.loaded.pipeline.vae.float()
    single = x.detach().float().requires_grad_()
    (adapter.decode(single) * weight.float()).sum().backward()
    torch.testing.assert_close(single.grad, gradient.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_chunks_and_recomputation_change_nothing(name, make):
    adapter = make(name)
    x = torch.randn(5, *adapter.latent_shape)
    found = {}
    for rows, recompute in ((8, False), (2, False), (2, True)):
        z = x.clone().requires_grad_()
        pictures = LatentImages(adapter.loaded.pipeline.vae, rows, recompute).decode(z)
        pictures.square().sum().backward()
        found[rows, recompute] = pictures.detach(), z.grad
    for pictures, gradient in found.values():
        torch.testing.assert_close(pictures, found[8, False][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient, found[8, False][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_latents_are_the_scaled_mode_of_the_encoder(name, make):
    adapter = make(name)
    pictures = torch.rand(3, 3, 16, 16)
    config = adapter.loaded.pipeline.vae.config
    with torch.no_grad():
        mode = adapter.loaded.pipeline.vae.encode(pictures * 2 - 1).latent_dist.mean
    expected = (mode - (config.shift_factor or 0)) * config.scaling_factor
    torch.testing.assert_close(adapter.latents(pictures), expected)
    with unchecked(), pytest.raises(MediaError, match=r"images must be \(B, 3, H, W\) in \[0, 1\]; got \(3, 16, 16\)"):
        adapter.latents(pictures[0])


def test_the_sdxl_autoencoder_works_in_float32_when_the_rest_does_not(make):
    adapter, exact = make("sdxl", dtype="fp16"), make("sdxl")
    assert adapter.loaded.pipeline.unet.dtype == torch.float16
    assert next(adapter.loaded.pipeline.vae.parameters()).dtype == torch.float32
    x = torch.randn(1, *adapter.latent_shape)
    expected = exact.decode(x.half().float()), exact.latents(torch.full((1, 3, 8, 8), 0.3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter.decode(x.half()), expected[0])
        assert torch.equal(adapter.latents(torch.full((1, 3, 8, 8), 0.3)), expected[1])


def test_an_autoencoder_with_its_own_mean_and_deviation_is_undone_and_redone(make):
    adapter = make("sdxl")
    adapter.loaded.pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.0, 2.0, 0.5, 1.5])
    z = torch.randn(2, 4, 4, 4)
    scaled = (z - adapter.loaded.autoencoder._shift(z)) * adapter.loaded.autoencoder._scale(z)
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([1.0, 2.0, 0.5, 1.5])
    expected = (z - mean[:, None, None]) / std[:, None, None] * adapter.loaded.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(scaled, expected)
    assert adapter.decode(scaled).isfinite().all()


def test_by_rows_is_the_function():
    x = torch.arange(7.0)
    assert torch.equal(by_rows(lambda part: part * 2, x, 3), x * 2)
