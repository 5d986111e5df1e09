"""Stable Audio 3 against `StableAudio3Pipeline`: Euler, its own ping-pong noise, lengths, stereo, LoRA."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign.adapters.sound.stable_audio_3 import StableAudio3
from mmalign.core.errors import CapabilityError, ConfigError, MediaError
from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Audio, Prompt
from tests.adapters.deterministic import sample
from tests.adapters.sound.tiny_stable_audio_3 import HOP, RATE, write_stable_audio_3
from tests.adapters.tiny_contract import (
    SCALE,
    STEPS,
    TEXTS,
    Family,
    a_row_does_not_depend_on_its_batch,
    disturb,
    each_text_is_encoded_once,
    plain_diffusers_loads_the_full_fine_tune,
    plain_peft_loads_the_lora,
    start_of,
    the_reference_is_exact_and_comes_back_from_errors,
)

SECONDS = 0.06  # 48 samples, 6 latents


def call(pipe, texts, start, steps, scale, output, negative=None):
    from diffusers import FlowMatchEulerDiscreteScheduler

    own = pipe.scheduler
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(own.config, stochastic_sampling=False)
    try:
        return pipe(
            texts,
            negative_prompt=None if negative is None else [negative] * len(texts),
            guidance_scale=scale,
            num_inference_steps=steps,
            latents=start,
            duration=SECONDS,
            output_type=output,
        ).audios
    finally:
        pipe.scheduler = own


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    from diffusers import StableAudio3Pipeline

    with torch.random.fork_rng():
        folder = write_stable_audio_3(tmp_path_factory.mktemp("stable_audio_3") / "tiny")
    return Family(StableAudio3, StableAudio3Pipeline, folder, call, {"seconds": SECONDS})


@pytest.mark.parametrize(
    "check",
    [
        a_row_does_not_depend_on_its_batch,
        each_text_is_encoded_once,
        plain_diffusers_loads_the_full_fine_tune,
        plain_peft_loads_the_lora,
        the_reference_is_exact_and_comes_back_from_errors,
    ],
)
def test_contract(check, family, tmp_path):
    check(family, tmp_path)


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_latents_and_sound_are_the_pipelines(family, scale):
    adapter, pipe = family.make(), family.plain()
    start = start_of(adapter)
    expected = call(pipe, TEXTS, start, STEPS, scale, "latent")
    ours = sample(adapter, TEXTS, start, STEPS, scale)
    assert (ours - expected).abs().max() <= 1e-4 and (ours - start).abs().max() > 0.1
    sound, heard = adapter.decode(ours), call(pipe, TEXTS, start, STEPS, scale, "pt")
    assert sound.rate == RATE == adapter.rate and sound.samples.shape == heard.shape == (2, 2, int(SECONDS * RATE))
    assert isinstance(adapter, LatentAdapter)
    assert (sound.samples.clamp(-1, 1) - heard).abs().max() <= 1e-4
    assert (sound.samples[:, 0] - sound.samples[:, 1]).abs().max() > 1e-3


def test_a_negative_prompt_is_the_pipelines(family):
    adapter, pipe = family.make(negative_prompt="noise"), family.plain()
    start = start_of(adapter)
    expected = call(pipe, TEXTS, start, STEPS, SCALE, "latent", "noise")
    assert (sample(adapter, TEXTS, start, STEPS, SCALE) - expected).abs().max() <= 1e-4
    assert (call(pipe, TEXTS, start, STEPS, SCALE, "latent") - expected).abs().max() > 1e-5


def test_its_own_sampler_is_cps_with_all_noise_redrawn(family, monkeypatch):
    """Ping-pong, given the same noise; the last step draws none."""
    from diffusers.schedulers import scheduling_flow_match_euler_discrete as module

    from mmalign.policies._steps import cps

    steps, adapter, pipe = 4, family.make(), family.plain()
    start = start_of(adapter)
    noise = torch.randn(steps, *start.shape, generator=torch.Generator().manual_seed(9))
    given = iter(noise)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(given))
    monkeypatch.setattr(torch, "randn_like", lambda *_, **__: next(given))
    expected = pipe(TEXTS, num_inference_steps=steps, latents=start, duration=SECONDS, output_type="latent").audios
    monkeypatch.undo()
    x, levels, condition = start, adapter.schedule(steps), adapter.encode([Prompt(text) for text in TEXTS])
    for k in range(steps):
        with torch.no_grad():
            said = adapter.predict(x, levels.times[k].expand(2), condition)
        x = cps(x, levels.sigma[k].expand(2), levels.sigma[k + 1].expand(2), said, noise[k], noise_level=1.0).next
    assert (x - expected).abs().max() <= 1e-4


def test_the_policy_replays_itself(family):
    from mmalign.policies.flow import Flow

    adapter, prompts = family.make(), [Prompt(text) for text in TEXTS]
    policy = Flow(adapter, num_inference_steps=STEPS, sde="cps", noise_level=1.0, rows=2)
    drawn = policy.sample(prompts, torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(drawn), drawn.step_logp)
    assert isinstance(drawn.output, Audio) and drawn.output.samples.shape == (2, 2, int(SECONDS * RATE))


def test_levels_are_the_pipelines(family):
    from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import logsnr_sigma_schedule

    adapter = family.make()
    for steps in (1, 8):
        levels = adapter.schedule(steps)
        want = torch.tensor([*logsnr_sigma_schedule(steps, -6.2, 2.0), 0.0])
        torch.testing.assert_close(levels.sigma, want)
        torch.testing.assert_close(levels.times, want)
        torch.testing.assert_close(levels.alpha, 1 - want)
    with pytest.raises(ConfigError, match="num_inference_steps: 0 is not a positive number"):
        adapter.schedule(0)
    assert torch.equal(adapter.level(torch.tensor([0.25])).times, torch.tensor([0.25]))


def test_lengths(family):
    odd = family.make(seconds=0.033)
    assert odd.latent_shape == (4, math.ceil(0.033 * RATE / HOP)) == (4, 4)
    assert odd.decode(start_of(odd)).samples.shape == (2, 2, 26)
    told = [a.encode([Prompt("x")])["global_hidden_states"] for a in (odd, family.make())]
    assert (told[0] - told[1]).abs().max() > 1e-6  # the network is told the length
    for seconds in (0.001, 0.6):
        with pytest.raises(ConfigError, match=rf"seconds: {seconds:g} is not a length .* more than 0 and at most 0\.5"):
            family.make(seconds=seconds)
    for seconds in (0.0, -1.0):
        with pytest.raises(ConfigError, match=rf"seconds: {seconds:g} is not a positive number"):
            family.make(seconds=seconds)
    with pytest.raises(ConfigError, match="logsnr: 2 at noise is not below -6 at data"):
        StableAudio3("m", logsnr=(2.0, -6.0))


def test_sound_becomes_the_latents_the_autoencoder_says(family):
    adapter = family.make(decode_rows=1)
    sound = torch.rand(2, 2, 48) - 0.5
    found = adapter.latents(Audio(sound, RATE))
    with torch.no_grad():
        expected = adapter.loaded.pipeline.vae.encode(sound).latents
    assert found.shape == (2, *adapter.latent_shape) and not found.requires_grad
    torch.testing.assert_close(found, expected)
    mono = adapter.latents(Audio(sound[:, :1, :40], RATE))
    silent = torch.nn.functional.pad(sound[:, :1, :40], (0, 8)).expand(-1, 2, -1)
    torch.testing.assert_close(mono, adapter.latents(Audio(silent, RATE)))
    with pytest.raises(MediaError, match="sound at 16000 Hz; this model's is at 800 Hz"):
        adapter.latents(Audio(sound, 16_000))


def test_gradients_reach_what_trains_and_the_latents(family):
    for more in ({}, {"dtype": "bf16", "gradient_checkpointing": True}):
        adapter = family.make(**more)
        disturb(adapter)
        x = start_of(adapter).requires_grad_()
        said = adapter.predict(x, torch.tensor([0.9, 0.3]), adapter.encode([Prompt(t) for t in TEXTS]))
        assert said.dtype == torch.float32 and adapter.decode(said).samples.dtype == torch.float32
        adapter.decode(said).samples.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.trainable().values())
        assert any(p.grad.abs().max() > 0 for p in adapter.trainable().values()) and x.grad.abs().max() > 0
        assert not any(p.requires_grad for p in adapter.loaded.pipeline.vae.parameters())


def test_media_is_refused_and_long_prompts_are_cut_aloud(family):
    adapter = family.make()
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(audio\) and 'stable_audio_3' reads"):
        adapter.encode([Prompt("x", media={"audio": torch.zeros(1, 4)})])
    with pytest.warns(UserWarning, match=r"stable_audio_3: the last 5 of 45 tokens .* are cut; shorten it\."):
        adapter.encode([Prompt("a" * 45)])


def test_as_many_sounds_as_the_autoencoder_has_tokens(family: Family) -> None:
    """Where rows and tokens are as many, diffusers' attention takes its mask for another one; here it cannot."""
    adapter = family.make(decode_rows=64)
    crowded, frames = set(), adapter.latent_shape[1]
    for block in adapter.loaded.autoencoder.vae.decoder.blocks:
        crowded.add(frames * (block.stride + 1))
        frames *= block.stride
    x = torch.randn(max(crowded), *adapter.latent_shape, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([adapter.decode(row[None]).samples for row in x])
    heard = torch.cat([adapter.latents(Audio(row[None], adapter.rate)) for row in alone])
    for rows in crowded:
        sounds = adapter.decode(x[:rows])
        assert torch.allclose(sounds.samples, alone[:rows], atol=1e-5)
        assert torch.allclose(adapter.latents(sounds), heard[:rows], atol=1e-4)
