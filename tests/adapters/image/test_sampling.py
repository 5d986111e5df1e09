"""The levels, the network call and the guidance of an adapter give what the family's own pipeline gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Prompt
from mmalign.loading.pipelines import modules
from tests.adapters.deterministic import sample

FAMILIES = ["sd", "sd_v", "sdxl", "sd3", "sd3_dynamic"]
TEXTS = ["a red cube", "two dogs"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_the_pipeline_itself_makes_the_same_latents_and_images(name, guidance_scale, make, pipeline):
    adapter, pipe = make(name), pipeline(name)
    start = torch.randn(2, *adapter.latent_shape)
    call = {"num_inference_steps": 4, "guidance_scale": guidance_scale, "latents": start}
    expected = pipe(TEXTS, output_type="latent", **call).images
    ours = sample(adapter, TEXTS, start, 4, guidance_scale)
    assert (ours - expected).abs().max() <= 1e-4
    assert (ours - start).abs().max() > 0.1  # something was generated
    pictures = pipe(TEXTS, output_type="pt", **call).images
    assert (adapter.decode(ours).clamp(0, 1) - pictures).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_a_negative_prompt_is_the_pipelines_negative_prompt(name, make, pipeline):
    adapter, pipe = make(name, negative_prompt="blurry"), pipeline(name)
    start = torch.randn(2, *adapter.latent_shape)
    call = {"num_inference_steps": 3, "guidance_scale": 4.0, "latents": start, "output_type": "latent"}
    ours = sample(adapter, TEXTS, start, 3, 4.0)
    assert (ours - pipe(TEXTS, negative_prompt=["blurry"] * 2, **call).images).abs().max() <= 1e-4
    assert (ours - pipe(TEXTS, **call).images).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_a_latent_adapter_whose_facts_are_readable_before_loading(name, make, checkpoint):
    adapter = make(name)
    assert isinstance(adapter, LatentAdapter)
    family: Any = type(adapter)
    assert family.modality == "image"
    unloaded = family(model=str(checkpoint(name)))
    with pytest.raises(AttributeError, match=rf"{family.__name__}.module is not there yet: call load\(\) first"):
        _ = unloaded.module
    with pytest.raises(AttributeError, match="has no attribute 'modul'"):
        _ = unloaded.modul


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_another_size_is_the_pipelines_other_size(name, make, pipeline):
    adapter, pipe = make(name, height=8, width=24), pipeline(name)
    assert adapter.latent_shape == (4, 4, 12)
    start = torch.randn(2, *adapter.latent_shape)
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "latents": start, "output_type": "latent"}
    expected = pipe(TEXTS, height=8, width=24, **call).images
    assert (sample(adapter, TEXTS, start, 2) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("name", "train", "dtype"),
    [
        *[("sd", "lora", "bf16"), ("sd", "full", "fp16"), ("sdxl", "lora", "fp16"), ("sdxl", "full", "bf16")],
        *[("sd3", "lora", "bf16"), ("sd3", "lora", "fp16"), ("sd3", "full", "bf16")],
    ],
)
def test_low_precision_is_near_full_precision_with_finite_float32_gradients(name, train, dtype, make):
    exact, low = make(name, train=train), make(name, train=train, dtype=dtype)
    start = torch.randn(2, *exact.latent_shape)
    expected, ours = sample(exact, TEXTS, start, 3, 2.0), sample(low, TEXTS, start, 3, 2.0)
    assert ours.dtype == torch.float32
    assert (ours - expected).abs().max() < 0.2
    assert all(p.dtype == torch.float32 for p in low.trainable().values())
    said = low.predict(start, torch.full((2,), 500.0), low.encode([Prompt(t) for t in TEXTS]))
    low.decode(said).square().mean().backward()
    gradients = [p.grad for p in low.trainable().values() if p.grad is not None]
    assert gradients and all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_gradient_checkpointing_gives_the_same_gradients(name, make):
    plain, saving = make(name), make(name, gradient_checkpointing=True, decode_rows=1)
    x, times = torch.randn(2, *plain.latent_shape), torch.tensor([700.0, 300.0])
    for adapter in (plain, saving):
        for p in adapter.trainable().values():
            with torch.no_grad():
                p.copy_(torch.linspace(-0.1, 0.1, p.numel()).reshape(p.shape))
        said = adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS]))
        adapter.decode(said).square().sum().backward()
    for key, p in plain.trainable().items():
        torch.testing.assert_close(saving.trainable()[key].grad, p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_only_the_trained_part_asks_for_gradients(name, make):
    adapter = make(name)
    for component in modules(adapter.loaded.pipeline).values():
        for key, p in component.named_parameters():
            assert p.requires_grad == (".lora_" in key)
