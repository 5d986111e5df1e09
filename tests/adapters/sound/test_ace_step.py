"""ACE-Step against `AceStepPipeline`: Euler, lyrics, guidance without momentum, lengths, LoRA."""

from __future__ import annotations

import pytest
import torch

from mmalign.adapters.sound.ace_step import AceStep
from mmalign.core.errors import CapabilityError, ConfigError, MediaError
from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Audio, Prompt
from tests.adapters.deterministic import sample
from tests.adapters.sound.tiny_ace_step import HOP, RATE, write_ace_step
from tests.adapters.tiny_contract import (
    STEPS,
    TEXTS,
    Family,
    a_row_does_not_depend_on_its_batch,
    disturb,
    plain_diffusers_loads_the_full_fine_tune,
    plain_diffusers_loads_the_lora,
    start_of,
    the_reference_is_exact_and_comes_back_from_errors,
)

SECONDS = 0.6  # 48 samples, 12 latents


def call(pipe, texts, start, steps, scale, output, lyrics=""):
    """A text at a time: beside a longer one, the pipeline lets it attend to its padding."""
    made = [
        pipe(
            text,
            lyrics=lyrics,
            guidance_scale=scale,
            num_inference_steps=steps,
            latents=start[i : i + 1],
            audio_duration=SECONDS,
            output_type=output,
        ).audios
        for i, text in enumerate(texts)
    ]
    return torch.cat(made)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("ace_step")
    with torch.random.fork_rng():
        return {turbo: write_ace_step(root / str(turbo), turbo=turbo) for turbo in (True, False)}


@pytest.fixture(scope="module")
def family(folders):
    from diffusers import AceStepPipeline

    return Family(AceStep, AceStepPipeline, folders[True], call, {"seconds": SECONDS, "max_lyric_length": 64})


@pytest.fixture(scope="module")
def guided(folders):
    from diffusers import AceStepPipeline

    return Family(AceStep, AceStepPipeline, folders[False], call, {"seconds": SECONDS, "max_lyric_length": 64})


@pytest.mark.parametrize(
    "check",
    [
        a_row_does_not_depend_on_its_batch,
        plain_diffusers_loads_the_lora,
        plain_diffusers_loads_the_full_fine_tune,
        the_reference_is_exact_and_comes_back_from_errors,
    ],
)
def test_contract(check, family, tmp_path):
    check(family, tmp_path)


def test_each_text_is_encoded_once_with_its_lyrics(guided):
    adapter, calls = guided.make(), []
    adapter.loaded.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    prompts = [Prompt(TEXTS[0]), Prompt(TEXTS[0], meta={"lyrics": "la"}), Prompt(TEXTS[0])]
    first = adapter.encode(prompts)
    assert torch.equal(first["length"][:1], first["length"][2:]) and first["length"][0] < first["length"][1]
    assert len(calls) == 2 and adapter.encode(prompts)["length"].shape == (3,) and len(calls) == 2
    assert adapter.unconditional(5)["length"].tolist() == [1] * 5


@pytest.mark.parametrize("lyrics", ["", "la la\nlo"])
def test_latents_and_sound_are_the_pipelines(family, lyrics):
    adapter, pipe = family.make(), family.plain()
    assert adapter.latent_shape == (12, 4)
    start = start_of(adapter)
    expected = call(pipe, TEXTS, start, STEPS, 1.0, "latent", lyrics)
    condition = adapter.encode([Prompt(t, meta={"lyrics": lyrics}) for t in TEXTS])
    levels, x = adapter.schedule(STEPS), start
    for k in range(STEPS):
        with torch.no_grad():
            said = adapter.predict(x, levels.times[k].expand(2), condition)
        x = x + (levels.sigma[k + 1] - levels.sigma[k]) * said
    assert (x - expected).abs().max() <= 1e-4 and (x - start).abs().max() > 0.1
    if not lyrics:
        assert (sample(adapter, TEXTS, start, STEPS) - x).abs().max() <= 1e-6
    heard, sound = call(pipe, TEXTS, start, STEPS, 1.0, "pt", lyrics), adapter.decode(x)
    assert sound.rate == RATE == adapter.rate and sound.samples.shape == heard.shape == (2, 2, 48)
    assert isinstance(adapter, LatentAdapter)
    peak = sound.samples.abs().amax((1, 2), keepdim=True)  # the pipeline evens out peaks, the adapter does not
    assert (sound.samples / peak * 10 ** (-1 / 20) - heard).abs().max() <= 1e-4
    assert (peak[0] - peak[1]).abs().max() > 1e-3


def test_guidance_is_the_pipelines_but_for_its_momentum(guided, family):
    """One step has no momentum."""
    adapter, pipe = guided.make(), guided.plain()
    start = start_of(adapter)
    expected = call(pipe, TEXTS, start, 1, 4.0, "latent")
    assert (sample(adapter, TEXTS, start, 1, 4.0) - expected).abs().max() <= 1e-4
    assert (sample(adapter, TEXTS, start, 1) - expected).abs().max() > 1e-3
    same = start.clone().requires_grad_()
    adapter.guide(same, same, 3.0).sum().backward()
    assert same.grad.isfinite().all()
    with pytest.raises(CapabilityError, match="has guidance distilled in; set the policy's guidance_scale to 1"):
        family.make().guide(start, start, 3.0)


def test_levels_lengths_and_faults(family):
    adapter = family.make()
    want = family.plain()._get_timestep_schedule(8, 3.0)
    torch.testing.assert_close(adapter.schedule(8).sigma, torch.cat([want, torch.zeros(1)]))
    torch.testing.assert_close(adapter.schedule(8).times, adapter.schedule(8).sigma)
    assert family.make(seconds=0.31).latent_shape == (7, 4)
    long = family.make(seconds=751.0)  # 15,020 latents, more than the silence that is stored
    assert long._context.shape == (1, 15_020, 8)
    assert torch.equal(long._context[:, :20, :4], long._context[:, 15_000:, :4])
    with pytest.raises(ConfigError, match=r"seconds: 0 is not a positive number\.\nshift: -1 is not a positive number"):
        AceStep("m", seconds=0.0, shift=-1.0)
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(audio\) and 'ace_step' reads text"):
        adapter.encode([Prompt("x", media={"audio": torch.zeros(1, 4)})])
    with pytest.warns(UserWarning, match=r"(?s)ace_step's lyrics: the last .* are cut; shorten it"):
        adapter.encode([Prompt("x", meta={"lyrics": "na " * 60})])


def test_sound_becomes_the_latents_the_autoencoder_says(family):
    adapter = family.make()
    sound = torch.rand(2, 2, 48) - 0.5
    found = adapter.latents(Audio(sound, RATE))
    with torch.no_grad():
        expected = adapter.loaded.pipeline.vae.encode(sound).latent_dist.mode().transpose(1, 2)
    assert found.shape == (2, 48 // HOP, 4)
    torch.testing.assert_close(found, expected)
    with pytest.raises(MediaError, match="sound at 16000 Hz; this model's is at 80 Hz"):
        adapter.latents(Audio(sound, 16_000))


def test_the_policy_replays_itself(family):
    from mmalign.policies.flow import Flow

    policy = Flow(family.make(), num_inference_steps=STEPS, rows=2)
    drawn = policy.sample([Prompt(text) for text in TEXTS], torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(drawn), drawn.step_logp)
    assert drawn.output.samples.shape == (2, 2, 48)


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
