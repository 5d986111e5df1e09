"""Trained weights: saved for plain diffusers, restored or refused with a sentence, off for the reference."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.adapters import load_adapter
from mmalign.adapters.sound.stable_audio import StableAudio
from mmalign.adapters.weights.lora import WEIGHTS_FILE, LoRA
from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.core.types import Prompt
from tests.adapters.deterministic import sample
from tests.adapters.sound.tiny_stable_audio import write_stable_audio

FAMILIES = ["sd", "sdxl", "sd3"]
TEXTS = ["a red cube", "two dogs"]


def predicted(adapter):
    """Predictions at fixed noise, one per text."""
    x = torch.linspace(-1, 1, 2 * torch.Size(adapter.latent_shape).numel()).reshape(2, *adapter.latent_shape)
    return adapter.predict(x, torch.tensor([900.0, 200.0]), adapter.encode([Prompt(text) for text in TEXTS]))


@torch.enable_grad()
def train(adapter, steps=2):
    optimizer = torch.optim.AdamW(adapter.trainable().values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (predicted(adapter) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_reference_is_exactly_the_start_whatever_was_trained(name, mode, make):
    adapter = make(name, train=mode)
    with torch.no_grad():
        start = predicted(adapter)
        with adapter.reference():
            assert torch.equal(predicted(adapter), start)  # ratio 1, KL 0 before the first update
        train(adapter)
        moved = predicted(adapter)
        assert (moved - start).abs().max() > 1e-3
        with adapter.reference():
            assert torch.equal(predicted(adapter), start)
            with adapter.reference():
                assert torch.equal(predicted(adapter), start)
            assert torch.equal(predicted(adapter), start)
        assert torch.equal(predicted(adapter), moved)
        with pytest.raises(KeyError, match=r"inside"), adapter.reference():
            raise KeyError("inside")
        assert torch.equal(predicted(adapter), moved)
    assert all(p.requires_grad for p in adapter.trainable().values())
    train(adapter, 1)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_reference_is_the_start_inside_an_outer_autocast_that_caches_casts(mode, make):
    adapter = make("sd3", train=mode, dtype="bf16")
    with torch.no_grad():
        start = predicted(adapter)
    train(adapter)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        live = predicted(adapter)  # with gradient: autocast keeps the casts
        with torch.no_grad(), adapter.reference():
            assert torch.equal(predicted(adapter), start)
        assert torch.equal(predicted(adapter), live)


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_diffusers_loads_the_lora_and_makes_what_the_adapter_makes(name, make, pipeline, tmp_path):
    adapter, pipe = make(name), pipeline(name)
    train(adapter)
    adapter.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS_FILE]
    start = torch.randn(2, *adapter.latent_shape)
    call = {"num_inference_steps": 3, "guidance_scale": 1.0, "latents": start, "output_type": "latent"}
    before = pipe(TEXTS, **call).images
    pipe.load_lora_weights(tmp_path)
    after = pipe(TEXTS, **call).images
    assert (after - before).abs().max() > 1e-2
    assert (after - sample(adapter, TEXTS, start, 3)).abs().max() <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_adapter_restores_a_lora_exactly(name, make, tmp_path):
    adapter, fresh = make(name), make(name)
    train(adapter)
    adapter.save(tmp_path)
    with torch.no_grad():
        assert not torch.equal(predicted(fresh), predicted(adapter))
        fresh.restore(tmp_path)
        assert torch.equal(predicted(fresh), predicted(adapter))
    assert all(p.requires_grad for p in fresh.trainable().values())


@pytest.mark.parametrize("name", ["sd3", "stable_audio"])
def test_saving_a_lora_looks_for_no_base_and_warns_of_nothing(name, make, tmp_path):
    adapter = (
        make("sd3") if name == "sd3" else StableAudio(str(write_stable_audio(tmp_path / "m")), device="cpu").load()
    )
    network: Any = next(module for module in adapter.module.modules() if hasattr(module, "peft_config"))
    network.peft_config["default"].base_model_name_or_path = str(tmp_path / "nowhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.save(tmp_path / "lora")
    assert list((tmp_path / "lora").glob("*.safetensors"))


def test_a_lora_that_does_not_fit_is_refused_naming_a_key(make, tmp_path):
    adapter = make("sd3")
    adapter.save(tmp_path)
    file = tmp_path / WEIGHTS_FILE
    state = load_file(file)
    key = min(state)

    save_file({k.replace("transformer.", "unet."): v for k, v in state.items()}, file)
    with pytest.raises(CheckpointError, match=r"28 of 28 keys do not belong to 'transformer', the first is 'unet\."):
        adapter.restore(tmp_path)
    save_file({k: v for k, v in state.items() if k != key}, file)
    with pytest.raises(CheckpointError, match=f"1 LoRA keys that it lacks, the first is '{re.escape(key[12:])}'"):
        adapter.restore(tmp_path)
    save_file(state | {"transformer.nowhere.lora_A.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=r"1 LoRA keys that this model does not have, the first is 'nowhere"):
        adapter.restore(tmp_path)
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"Set lora\.rank to what it was trained with \(2\?\)"):
        make("sd3", lora={"rank": 3}).restore(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=f"{WEIGHTS_FILE}: truncated or damaged"):
        adapter.restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file; a folder written by save"):
        adapter.restore(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_full_fine_tune_is_a_folder_that_diffusers_reads(name, make, pipeline, tmp_path):
    adapter, pipe, fresh = make(name, train="full"), pipeline(name), make(name, train="full")
    train(adapter)
    adapter.save(tmp_path)
    component = "transformer" if name == "sd3" else "unet"
    network = getattr(pipe, component)
    setattr(pipe, component, type(network).from_pretrained(tmp_path, subfolder=component))
    start = torch.randn(2, *adapter.latent_shape)
    call = {"num_inference_steps": 3, "guidance_scale": 1.0, "latents": start, "output_type": "latent"}
    ours = sample(adapter, TEXTS, start, 3)
    assert (pipe(TEXTS, **call).images - ours).abs().max() <= 1e-4
    fresh.restore(tmp_path)
    assert torch.equal(sample(fresh, TEXTS, start, 3), ours)
    with torch.no_grad(), fresh.reference(), adapter.reference():
        assert torch.equal(predicted(fresh), predicted(adapter))  # the reference stays the base model


def test_a_full_fine_tune_of_another_model_is_refused(make, tmp_path):
    make("sd", train="full").save(tmp_path)
    adapter = make("sd", train="full")
    (file,) = (tmp_path / "unet").glob("*.safetensors")
    state = load_file(file)
    save_file({k: v for k, v in state.items() if k != "conv_in.bias"}, file)
    with pytest.raises(CheckpointError, match=r"unet: 1 keys are missing, the first is 'conv_in.bias'"):
        adapter.restore(tmp_path)
    save_file(state | {"conv_in.bias": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"'conv_in.bias' is \(3,\) and this model's is \(8,\)"):
        adapter.restore(tmp_path)


def test_the_lora_starts_equal_on_every_machine_and_leaves_random_state_alone(make):
    torch.manual_seed(5)
    first = make("sd3").trainable()
    after = torch.get_rng_state()
    torch.manual_seed(6)
    second = make("sd3").trainable()
    other = make("sd3", lora={"rank": 2, "seed": 1}).trainable()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    torch.manual_seed(5)
    assert torch.equal(after, torch.get_rng_state())


def test_lora_options_are_checked(make):
    with pytest.raises(ConfigError, match=r"rank: 0 is not a positive number\.\ndropout: 1, but what a policy says"):
        LoRA(rank=0, dropout=1.0)
    with pytest.raises(ConfigError, match=r"to_qq names no module of SD3Transformer2DModel.*attn.to_q"):
        make("sd3", lora={"target_modules": ["to_qq"]})
    with pytest.raises(ConfigError, match=r"lora.targets: unknown option; here it is target_modules"):
        make("sd3", lora={"targets": "all-linear"})
    everywhere = make("sd3", lora={"rank": 2, "target_modules": "all-linear"})
    linear = {name for name, part in make("sd3", train="full").module.named_modules() if type(part) is torch.nn.Linear}
    assert {key.partition(".lora_")[0] for key in everywhere.trainable()} == linear and "proj_out" in linear
    only = make("sd3", lora={"rank": 2, "target_modules": ["attn.to_q"]})
    assert all(".attn.to_q." in key for key in only.trainable())


@pytest.mark.parametrize("name", ["sd", "stable_audio"])
def test_a_lora_goes_on_at_the_scale_it_was_trained_at_or_not_at_all(name, make, tmp_path):
    if name == "sd":
        first, other = make("sd"), make("sd", lora={"rank": 2, "alpha": 8})
    else:  # saved in peft's form
        folder = write_stable_audio(tmp_path / "model")
        first, other = (
            load_adapter(name, model=str(folder), device="cpu", lora={"rank": 2, "alpha": alpha}) for alpha in (4, 8)
        )
    first.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"was trained with lora.alpha / rank 2 and this run has 4 .*alpha to 4"):
        other.restore(tmp_path / "saved")
    first.restore(tmp_path / "saved")
