"""Qwen-Image against `QwenImagePipeline`: variable prompt lengths, five-axis latents, guidance with its rescaling."""

from __future__ import annotations

import pytest
import torch

from mmalign.adapters.image.qwen_image import QwenImage
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt
from tests.adapters.deterministic import sample
from tests.adapters.image.tiny_qwen_image import write_qwen_image
from tests.adapters.tiny_contract import CHECKS, NAMES, STEPS, TEXTS, Family, start_of


def call(pipe, texts, start, steps, scale, output, negative=" "):
    from diffusers import QwenImagePipeline

    rows, channels, height, width = start.shape
    pixels = (height * pipe.vae_scale_factor, width * pipe.vae_scale_factor)
    out = pipe(
        texts,
        negative_prompt=[negative] * rows if scale > 1 else None,
        true_cfg_scale=scale,
        height=pixels[0],
        width=pixels[1],
        num_inference_steps=steps,
        latents=QwenImagePipeline._pack_latents(start, rows, channels, height, width),
        output_type=output,
    ).images
    if output == "latent":
        return QwenImagePipeline._unpack_latents(out, *pixels, pipe.vae_scale_factor)[:, :, 0]
    return out


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    from diffusers import QwenImagePipeline

    with torch.random.fork_rng():
        folder = write_qwen_image(tmp_path_factory.mktemp("qwen_image"))
    options = {"resolution": 32, "max_sequence_length": 64}
    # its decoder rounds to float32 inside, so a smaller step would be lost
    return Family(QwenImage, QwenImagePipeline, folder, call, options, decoder_step=1e-3)


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_contract(check, family, tmp_path):
    check(family, tmp_path)


def test_a_size_that_is_not_square_is_the_pipelines(family):
    adapter, pipe = family.make(height=24, width=40), family.plain()
    assert adapter.latent_shape == (4, 6, 10)
    start = start_of(adapter)
    ours = sample(adapter, TEXTS, start, STEPS, 3.0)
    assert (ours - call(pipe, TEXTS, start, STEPS, 3.0, "latent")).abs().max() <= 1e-4


def test_guidance_keeps_the_length_of_every_token_and_is_nothing_at_one(family):
    from diffusers import QwenImagePipeline

    adapter = family.make()
    c, u = start_of(adapter), start_of(adapter, seed=1)
    guided = adapter.guide(c, u, 4.0)
    lengths = [QwenImagePipeline._pack_latents(v, *v.shape).norm(dim=-1) for v in (guided, c)]
    torch.testing.assert_close(lengths[0], lengths[1])
    assert (guided - c).abs().max() > 0.1
    torch.testing.assert_close(adapter.guide(c, u, 1.0), c)
    assert adapter.guide(torch.zeros_like(c), torch.zeros_like(c), 4.0).abs().max() == 0


def test_conditions_are_the_pipelines_padded_to_one_length(family):
    adapter, pipe = family.make(), family.plain()
    condition = adapter.encode([Prompt(t) for t in TEXTS])
    embeds, mask = pipe.encode_prompt(TEXTS)
    known = embeds.shape[1]
    assert condition["encoder_hidden_states"].shape[:2] == condition["encoder_hidden_states_mask"].shape == (2, 64)
    assert condition["encoder_hidden_states_mask"].sum(1).tolist() == mask.sum(1).tolist()
    assert len(set(mask.sum(1).tolist())) == 2  # the texts do differ in length
    torch.testing.assert_close(condition["encoder_hidden_states"][:, :known], embeds, rtol=1e-4, atol=1e-5)
    assert condition["encoder_hidden_states"][:, known:].abs().max() == 0


def test_padding_is_not_attended_to(family):
    short, long = family.make(max_sequence_length=48), family.make(max_sequence_length=200)
    start = start_of(short)
    ours, other = (sample(adapter, TEXTS, start, 2) for adapter in (short, long))
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


def test_a_prompt_longer_than_the_pipeline_reads_is_never_cut_in_silence(family):
    adapter = family.make(max_sequence_length=1024)
    with pytest.warns(UserWarning, match=r"the last \d+ of \d{4} tokens of the prompt 'red red red"):
        assert adapter.encode([Prompt("red " * 1100)])["encoder_hidden_states"].shape[1] == 1024


def test_a_prompt_that_is_too_long_is_cut_with_a_warning_as_the_pipeline_cuts_it(family):
    adapter = family.make(max_sequence_length=8)
    with pytest.warns(UserWarning, match=r"the last \d+ of \d+ tokens of the prompt 'a red circle left of two blue"):
        condition = adapter.encode([Prompt("a red circle left of two blue squares " * 3)])
    expected, _ = family.plain().encode_prompt(["a red circle left of two blue squares " * 3], max_sequence_length=8)
    torch.testing.assert_close(condition["encoder_hidden_states"], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="max_sequence_length: 2000 is more than 1024, the most that QwenImagePipel"):
        QwenImage(model="x", max_sequence_length=2000)


def test_images_are_the_autoencoders_but_not_clamped(family):
    adapter = family.make()
    vae, x = adapter.loaded.pipeline.vae, start_of(adapter)
    vae.decoder.conv_out.weight.data.mul_(5)  # brighter and darker than paper and ink
    mean, std = (torch.tensor(getattr(vae.config, k)).view(1, -1, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    with torch.no_grad():
        own = vae.decode(x[:, :, None] * std + mean).sample[:, :, 0] / 2 + 0.5
    x.requires_grad_()
    images = adapter.decode(x)
    assert ((images < 0) | (images > 1)).any()  # there is something to clamp
    torch.testing.assert_close(images.clamp(0, 1).detach(), own, rtol=1e-4, atol=1e-5)
    outside = images[(images < 0) | (images > 1)].sum()
    assert torch.autograd.grad(outside, x)[0].abs().max() > 0


def test_latents_are_normalised_per_channel(family):
    adapter = family.make()
    images = torch.rand(2, 3, 32, 32)
    vae = adapter.loaded.pipeline.vae
    with torch.no_grad():
        z = vae.encode(images[:, :, None] * 2 - 1).latent_dist.mean[:, :, 0]
    for channel, (mean, std) in enumerate(zip(vae.config.latents_mean, vae.config.latents_std, strict=True)):
        torch.testing.assert_close(adapter.latents(images)[:, channel], (z[:, channel] - mean) / std)


def test_the_schedule_ends_where_the_scheduler_stretches_it_to(family):
    adapter = family.make()
    assert adapter.schedule(8).sigma[-2].item() == pytest.approx(0.02, abs=1e-6)
    assert adapter.schedule(2).sigma.isfinite().all()
    with pytest.raises(ConfigError, match="num_inference_steps: 1 is too few for a scheduler with shift_terminal"):
        adapter.schedule(1)
