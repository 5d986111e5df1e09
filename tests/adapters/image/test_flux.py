"""FLUX.1 against `FluxPipeline`: dev (guidance embedding, dynamic shift) and schnell (neither)."""

from __future__ import annotations

import pytest
import torch

from mmalign.adapters.image._packing import pack, unpack
from mmalign.adapters.image.flux import Flux
from mmalign.core.errors import CheckpointError, ConfigError
from tests.adapters.deterministic import sample
from tests.adapters.image.tiny_flux import write_flux
from tests.adapters.tiny_contract import CHECKS, NAMES, STEPS, TEXTS, Family, start_of

SIZE = 16


def call(pipe, texts, start, steps, scale, output, negative="", guidance_scale=3.5):
    from diffusers import FluxPipeline

    rows, channels, height, width = start.shape
    out = pipe(
        texts,
        negative_prompt=[negative] * rows if scale > 1 else None,
        true_cfg_scale=scale,
        guidance_scale=guidance_scale,
        height=height * pipe.vae_scale_factor,
        width=width * pipe.vae_scale_factor,
        num_inference_steps=steps,
        latents=FluxPipeline._pack_latents(start, rows, channels, height, width),
        max_sequence_length=64,
        output_type=output,
    ).images
    pixels = (height * pipe.vae_scale_factor, width * pipe.vae_scale_factor)
    return FluxPipeline._unpack_latents(out, *pixels, pipe.vae_scale_factor) if output == "latent" else out


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    from diffusers import FluxPipeline

    root, options = tmp_path_factory.mktemp("flux"), {"resolution": SIZE, "max_sequence_length": 64}
    with torch.random.fork_rng():
        folders = {name: write_flux(root / name, distilled=name == "dev") for name in ("dev", "schnell")}
    return {name: Family(Flux, FluxPipeline, folder, call, options) for name, folder in folders.items()}


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_contract(check, families, tmp_path):
    check(families["dev"], tmp_path)


@pytest.mark.parametrize("check", CHECKS[:3], ids=NAMES[:3])
def test_contract_of_schnell(check, families, tmp_path):
    check(families["schnell"], tmp_path)


def test_the_embedded_guidance_is_the_pipelines_guidance_scale(families):
    family = families["dev"]
    adapter, pipe = family.make(embedded_guidance=7.0), family.plain()
    start = start_of(adapter)
    ours = sample(adapter, TEXTS, start, STEPS)
    assert (ours - call(pipe, TEXTS, start, STEPS, 1.0, "latent", guidance_scale=7.0)).abs().max() <= 1e-4
    assert (ours - call(pipe, TEXTS, start, STEPS, 1.0, "latent", guidance_scale=3.5)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_a_size_that_is_not_square_is_the_pipelines(name, families):
    family = families[name]
    adapter, pipe = family.make(height=12, width=20), family.plain()
    assert adapter.latent_shape == (4, 6, 10)
    start = start_of(adapter)
    ours = sample(adapter, TEXTS, start, STEPS)
    assert (ours - call(pipe, TEXTS, start, STEPS, 1.0, "latent")).abs().max() <= 1e-4


def test_the_shift_of_dev_grows_with_the_picture_and_schnell_has_none(families):
    small, large = (families["dev"].make(resolution=size).schedule(8).sigma for size in (16, 256))
    assert (large[1:-1] > small[1:-1]).all()
    torch.testing.assert_close(families["schnell"].make().schedule(4).sigma, torch.tensor([1, 0.75, 0.5, 0.25, 0]))


def test_packing_is_the_pipelines_and_unpacking_undoes_it():
    from diffusers import FluxPipeline

    x = torch.randn(2, 4, 6, 10)
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 4, 6, 10))
    assert torch.equal(unpack(pack(x), 6, 10), x)


def test_the_default_size_is_the_pipelines(families):
    adapter = families["schnell"].make(resolution=None)
    assert (adapter.height, adapter.width) == (256, 256)  # 128 latents of two pixels


def test_impossible_options_say_what_is_possible(families):
    with pytest.raises(ConfigError, match=r"height: 18 is not a positive multiple of 4.*the nearest is 16"):
        families["dev"].make(height=18)
    with pytest.raises(ConfigError, match="max_sequence_length: 513 is more than 512, the most that FluxPipeline"):
        Flux(model="x", max_sequence_length=513)


def test_another_familys_checkpoint_is_refused_by_name(tmp_path, families):
    from tests.adapters.image.tiny_sana import write_sana

    with pytest.raises(CheckpointError, match=r"holds a SanaPipeline, this adapter drives FluxPipeline.*'sana'"):
        Flux(model=str(write_sana(tmp_path / "sana")), device="cpu").load()
