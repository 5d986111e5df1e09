"""Stable Audio against `StableAudioPipeline`: its deterministic sampler, its own noise, durations, stereo, LoRA."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign.adapters.bases.sound_adapter import reach
from mmalign.adapters.sound.stable_audio import StableAudio
from mmalign.core.errors import CapabilityError, ConfigError, MediaError
from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Audio, Prompt
from tests.adapters.deterministic import sample
from tests.adapters.sound.tiny_stable_audio import FRAMES, HOP, RATE, write_stable_audio
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

SECONDS = 0.06


def deterministic(config):
    """The scheduler that the pipeline's signature names, at first order, with the times that this model was trained on.

    diffusers has no deterministic one that does both: its `EDMDPMSolverMultistepScheduler` takes log σ / 4 for time.
    """
    from diffusers import CosineDPMSolverMultistepScheduler, EDMDPMSolverMultistepScheduler

    class Solver(EDMDPMSolverMultistepScheduler):
        precondition_noise = CosineDPMSolverMultistepScheduler.precondition_noise

    names = ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "prediction_type")
    return Solver(solver_order=1, algorithm_type="dpmsolver++", **{name: config[name] for name in names})


def call(pipe, texts, start, steps, scale, output, negative=None):
    own = pipe.scheduler
    pipe.scheduler = deterministic(own.config)
    try:
        return pipe(
            texts,
            negative_prompt=None if negative is None else [negative] * len(texts),
            guidance_scale=scale,
            num_inference_steps=steps,
            latents=start,
            audio_end_in_s=SECONDS,
            output_type=output,
        ).audios
    finally:
        pipe.scheduler = own


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    from diffusers import StableAudioPipeline

    with torch.random.fork_rng():
        folder = write_stable_audio(tmp_path_factory.mktemp("stable_audio") / "tiny")
    return Family(StableAudio, StableAudioPipeline, folder, call, {"seconds": SECONDS})


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
    sound = adapter.decode(ours)
    heard = call(pipe, TEXTS, start, STEPS, scale, "pt")
    assert sound.rate == RATE == adapter.rate and sound.samples.shape == heard.shape == (2, 2, int(SECONDS * RATE))
    assert (sound.samples - heard).abs().max() <= 1e-4
    assert (sound.samples[:, 0] - sound.samples[:, 1]).abs().max() > 1e-3  # two channels, not one twice


def test_a_prediction_brings_nothing_from_the_host(family, monkeypatch):
    from diffusers.models import embeddings

    adapter, made, asked = family.make(), embeddings.get_1d_rotary_pos_embed, []

    def noted(width, at, **how):
        asked.append(at)
        return made(width, at, **how)

    monkeypatch.setattr(embeddings, "get_1d_rotary_pos_embed", noted)
    condition = adapter.encode([Prompt("a red circle")])
    adapter.predict(torch.zeros(1, *adapter.latent_shape), torch.full((1,), 0.5), condition)
    assert len(asked) == 1 and isinstance(asked[0], torch.Tensor) and asked[0].device == adapter.device


def test_a_negative_prompt_is_the_pipelines_and_none_is_its_empty_condition(family):
    pipe = family.plain()
    found = {}
    for negative in (None, "", "noise"):
        adapter = family.make(negative_prompt=negative)
        start = start_of(adapter)
        found[negative] = sample(adapter, TEXTS, start, STEPS, SCALE)
        assert (found[negative] - call(pipe, TEXTS, start, STEPS, SCALE, "latent", negative)).abs().max() <= 1e-4
    assert (found[None] - found[""]).abs().max() > 1e-4 and (found[""] - found["noise"]).abs().max() > 1e-4


def test_the_policy_at_eta_0_is_the_deterministic_pipeline_and_replays_itself(family):
    from mmalign.policies.ddpm import Ddpm

    adapter = family.make()
    prompts = [Prompt(text) for text in TEXTS]
    policy = Ddpm(adapter, num_inference_steps=STEPS, guidance_scale=SCALE, eta=1.0, rows=2)
    rollout = policy.generate(prompts, torch.Generator().manual_seed(3))
    noise = torch.randn(2, *adapter.latent_shape, generator=torch.Generator().manual_seed(3))
    expected = call(family.plain(), TEXTS, noise, STEPS, SCALE, "latent")
    assert (rollout.trajectory["x0"] - expected).abs().max() <= 1e-4
    assert isinstance(rollout.output, Audio) and rollout.output.samples.abs().max() <= 1
    drawn = policy.sample(prompts, torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(drawn), drawn.step_logp)


def test_eta_1_is_the_pipelines_own_scheduler_at_first_order(family, monkeypatch):
    """Its noise comes from a Brownian tree (torchsde); here both get the same numbers, one set a step."""
    from diffusers import CosineDPMSolverMultistepScheduler
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as module

    from mmalign.policies._steps import clean_and_noise, posterior_std, renoise

    steps, adapter, pipe = 5, family.make(), family.plain()
    start = start_of(adapter)
    noise = torch.randn(steps, *start.shape, generator=torch.Generator().manual_seed(9))
    given = iter(noise)
    monkeypatch.setattr(module, "BrownianTreeNoiseSampler", lambda *_, **__: lambda *_: next(given))
    pipe.scheduler = CosineDPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=1)
    expected = pipe(
        TEXTS,
        guidance_scale=1.0,
        num_inference_steps=steps,
        latents=start,
        audio_end_in_s=SECONDS,
        output_type="latent",
    ).audios
    x, levels, condition = start, adapter.schedule(steps), adapter.encode([Prompt(text) for text in TEXTS])
    for k in range(steps):
        here, after = levels[torch.tensor([k, k])], levels[torch.tensor([k + 1, k + 1])]
        with torch.no_grad():
            said = adapter.predict(x, here.times, condition)
        clean, epsilon = clean_and_noise("v", x, said, here.alpha, here.sigma)
        std = posterior_std(here.alpha, here.sigma, after.alpha, after.sigma)
        x = renoise(clean, epsilon, after.alpha, after.sigma, std, noise[k]).next
    assert (x - expected).abs().max() <= 1e-4


def test_levels_are_the_schedulers_in_unit_variance(family):
    adapter, scheduler = family.make(), family.plain().scheduler
    assert isinstance(adapter, LatentAdapter)
    for steps in (2, 10):
        scheduler.set_timesteps(steps)
        levels = adapter.schedule(steps)
        torch.testing.assert_close(levels.times[:-1], scheduler.timesteps)
        torch.testing.assert_close(levels.sigma / levels.alpha, scheduler.sigmas, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(levels.sigma**2 + levels.alpha**2, torch.ones(steps + 1))
        assert levels.sigma[-1] == 0
    u = torch.tensor([[0.1, 0.5], [0.9, 0.99]])
    level = adapter.level(u)
    assert torch.equal(level.times, u)
    assert level.alpha[0, 1].item() == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ConfigError, match="num_inference_steps: 1 starts this scheduler at its lowest level"):
        adapter.schedule(1)


def test_sound_is_decoded_no_further_than_it_is_heard(family):
    """What is cut off is not computed, and what is heard does not change by it."""
    adapter = family.make(decode_rows=1)
    vae, seen = adapter.loaded.pipeline.vae, []
    vae.decoder.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[2]))
    x = torch.randn(1, 4, 120).requires_grad_()
    with torch.no_grad():
        whole = vae.decode(x).sample
    (slope,) = torch.autograd.grad(vae.decode(x).sample[..., 39].abs().sum(), x)
    assert int(slope.abs().sum((0, 1)).nonzero().max()) < 10 + reach([2, 2])  # sample 39 is of frame 9
    seen.clear()
    adapter.loaded.autoencoder.samples = 40
    assert (adapter.decode(x).samples - whole[..., :40]).abs().max() <= 1e-5
    assert seen == [10 + reach([2, 2])]


def test_only_the_latents_that_a_length_needs_unless_whole(family):
    whole, short = family.make(), family.make(whole=False)
    assert whole.latent_shape == (4, FRAMES) and short.latent_shape == (4, math.ceil(SECONDS * RATE / HOP))
    assert family.make(seconds=None).seconds == pytest.approx(FRAMES * HOP / RATE)
    sound = short.decode(start_of(short))
    assert sound.samples.shape == (2, 2, int(SECONDS * RATE))
    assert short.latents(sound).shape == (2, *short.latent_shape)
    told = [a.encode([Prompt("x")])["global_hidden_states"] for a in (whole, family.make(seconds=0.1))]
    assert (told[0] - told[1]).abs().max() > 1e-6  # the network is told the length
    for seconds in (0.0001, 0.2):
        with pytest.raises(
            ConfigError, match=rf"seconds: {seconds:g} is not a length .* more than 0 and at most 0\.12"
        ):
            family.make(seconds=seconds)
    for seconds in (0.0, -1.0):
        with pytest.raises(ConfigError, match=rf"seconds: {seconds:g} is not a positive number"):
            family.make(seconds=seconds)


def test_sound_becomes_the_latents_the_autoencoder_says(family):
    adapter = family.make(decode_rows=1)
    sound = torch.rand(2, 2, int(SECONDS * RATE)) - 0.5
    found = adapter.latents(Audio(sound, RATE))
    padded = torch.nn.functional.pad(sound, (0, FRAMES * HOP - sound.shape[2]))
    with torch.no_grad():
        expected = adapter.loaded.pipeline.vae.encode(padded).latent_dist.mode()
    assert found.shape == (2, *adapter.latent_shape) and not found.requires_grad
    torch.testing.assert_close(found, expected)
    mask = torch.ones(2, sound.shape[2], dtype=torch.bool)
    mask[:, 20:] = False
    torch.testing.assert_close(adapter.latents(Audio(sound, RATE, mask)), adapter.latents(Audio(sound[..., :20], RATE)))
    mono = adapter.latents(Audio(sound[:, :1], RATE))
    torch.testing.assert_close(mono, adapter.latents(Audio(sound[:, :1].expand(-1, 2, -1), RATE)))


@pytest.mark.parametrize(
    ("sound", "why"),
    [
        (Audio(torch.zeros(1, 2, 8), 16_000), "sound at 16000 Hz; this model's is at 800 Hz: resample it first"),
        (Audio(torch.zeros(1, 6, 8), RATE), "sound of 6 channels; this model's has 2: mix or repeat"),
        (Audio(torch.zeros(1, 2, 80), RATE), r"sound of 0\.1 s; this adapter makes 0\.06 s: raise seconds, or cut it"),
        (Audio(torch.full((1, 2, 8), float("nan")), RATE), "samples that are not finite"),
    ],
)
def test_sound_that_does_not_fit_is_refused(family, sound, why):
    with pytest.raises(MediaError, match=why):
        family.make().latents(sound)


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


def test_the_decoders_gradient_is_its_slope(family):
    adapter = family.make()
    decoder = adapter.loaded.pipeline.vae.double().decode
    x, direction = (torch.randn(1, 4, 6, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(decoder(x).sample.square().sum(), x)
    with torch.no_grad():
        ends = [decoder(x + sign * 1e-6 * direction).sample.square().sum() for sign in (1, -1)]
    torch.testing.assert_close((slope * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_the_published_decoder_needs_few_frames_beyond_the_end():
    from diffusers import AutoencoderOobleck

    vae = AutoencoderOobleck(8, [2, 4, 4, 8, 8], [1, 1, 1, 1, 1], 2, 4)
    x = torch.randn(1, 4, 24).requires_grad_()
    (slope,) = torch.autograd.grad(vae.decode(x).sample[..., 4 * 2048 - 1].abs().sum(), x)
    assert int(slope.abs().sum((0, 1)).nonzero().max()) < 4 + reach([2, 4, 4, 8, 8]) <= 16


def test_what_to_install_is_said(family, monkeypatch):
    import sys

    from mmalign.core.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "torchsde", None)
    with pytest.raises(MissingExtra, match=r"needs the 'audio' extra: pip install 'mmalign\[audio\]'"):
        family.make()


def test_prompts_matter_and_media_is_refused(family):
    adapter = family.make()
    x, times = start_of(adapter, 1).expand(2, -1, -1), torch.full((2,), 0.5)
    with torch.no_grad():
        one, other = adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS]))
    assert (one - other).abs().max() > 1e-4
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(audio\) and 'stable_audio' reads"):
        adapter.encode([Prompt("x", media={"audio": torch.zeros(1, 4)})])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type 'epsilon' with sigma_data 1 is not supported"),
        ({"sigma_data": 0.5}, "prediction_type 'v_prediction' with sigma_data 0.5 is not supported"),
        (None, "DDIMScheduler: the levels of this model are read from a CosineDPMSolverMultistepScheduler"),
    ],
)
def test_other_schedulers_are_refused(change, why, tmp_path):
    from diffusers import DDIMScheduler

    folder = write_stable_audio(tmp_path / "other", **(change or {}))
    if change is None:
        index = folder / "model_index.json"
        index.write_text(index.read_text().replace("CosineDPMSolverMultistepScheduler", "DDIMScheduler"))
        DDIMScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(CapabilityError, match=why):
        StableAudio(model=str(folder), device="cpu").load()
