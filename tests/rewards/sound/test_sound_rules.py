"""Loudness, clipping, silence, flatness, duration and Audiobox aesthetics: by hand, and what they say of bad sound."""

import json
import math
import sys
import types

import pytest
import torch

from mmalign.core.errors import ConfigError, MissingExtra
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.rewards import load_reward
from mmalign.rewards.engine.cache import identity
from tests.rewards.sounds import rollout

RATE = 16_000
SANITY = ["loudness", "clipping", "silence", "flatness", "duration"]


def sine(level=0.5, seconds=1.0, hertz=997.0, rate=RATE):
    return level * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * rate)) / rate)


def value(name, wave, rate=RATE, **options):
    scores = load_reward(name, **options)(rollout(torch.as_tensor(wave).reshape(1, -1, wave.shape[-1]), rate))
    return scores.value.item() if scores.status[0] == Status.OK else Status(int(scores.status[0]))


def test_loudness_of_the_standards_own_tone():
    """BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS."""
    full = sine(1.0, rate=48_000)
    exactly = {"target": 0.0, "tolerance": 0.0, "rate": 48_000}
    mono = value("loudness", full, **exactly)
    assert mono == pytest.approx(-3.01, abs=0.05)
    assert value("loudness", torch.stack([full, full]), **exactly) == pytest.approx(mono + 3.01, abs=0.01)
    assert value("loudness", full / 10, **exactly) == pytest.approx(mono - 20, abs=0.01)
    assert value("loudness", full / 10, rate=48_000, target=-16.0) == pytest.approx(mono - 2, abs=0.01)  # tolerance 2
    assert value("loudness", full / 10, rate=48_000, target=-22.0) == 0.0
    assert value("loudness", torch.zeros(RATE), target=-16.0, tolerance=0.0) == -54.0  # the gate, not minus infinity
    assert value("loudness", sine(seconds=0.3)) is Status.NOT_APPLICABLE
    assert value("loudness", full.expand(9, -1)) is Status.ERROR  # nobody says where nine channels stand


def test_clipping_and_silence_are_shares():
    wave = sine(0.5)
    assert value("clipping", wave) == 0.0
    assert value("clipping", torch.cat([wave, torch.ones(RATE)])) == pytest.approx(-0.5)
    assert value("silence", wave) == 0.0
    assert value("silence", torch.cat([wave, 1e-5 * wave, 1e-5 * wave])) == pytest.approx(-2 / 3, abs=0.01)
    assert value("silence", torch.zeros(10)) == -1.0
    assert value("silence", 1e-2 * wave, threshold=-20.0) == -1.0


def test_noise_is_flat_and_tones_are_not():
    noise = 0.1 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0))
    assert value("flatness", noise) == pytest.approx(-math.exp(-0.5772), abs=0.01)
    assert value("flatness", sine()) > -1e-3
    assert value("flatness", torch.zeros(RATE)) is Status.NOT_APPLICABLE
    assert -1 <= value("flatness", torch.full((100,), 0.5)) <= 0  # padded to one frame


def test_duration_ends_where_the_sound_is_last_heard():
    wave = torch.cat([sine(seconds=0.5), torch.zeros(RATE)])
    wanted = Rollout(
        [Prompt("a", meta={"seconds": 1.0}), Prompt("a")], Audio(wave.expand(2, 1, -1), RATE), torch.arange(2)
    )
    scores = load_reward("duration")(wanted)
    assert scores.value[0].item() == pytest.approx(-0.5) and scores.status[1] == Status.NOT_APPLICABLE
    assert load_reward("duration", seconds=0.25)(wanted).value[1].item() == pytest.approx(-1.0)
    assert value("duration", torch.zeros(RATE), seconds=2.0) == -1.0
    without = Rollout([Prompt("a", meta={"seconds": None})], Audio(torch.zeros(1, 1, RATE), RATE), torch.arange(1))
    assert load_reward("duration", seconds=2.0)(without).value.item() == -1.0  # a table's empty cell says nothing


@pytest.mark.parametrize("name", SANITY)
def test_masks_are_heeded_and_bad_sounds_are_errors_of_their_rows(name):
    samples = sine().expand(4, 1, -1).clone()
    samples[1, 0, 3] = float("nan")
    mask = torch.ones(4, RATE, dtype=torch.bool)
    mask[2] = False
    mask[3, RATE // 2 :] = False
    samples[3, 0, RATE // 2 :] = 1.0  # beyond the mask: not heard
    scores = load_reward(name)(rollout(samples, RATE, mask=mask))
    assert scores.status.tolist() == [Status.OK, Status.ERROR, Status.ERROR, Status.OK]
    assert "not finite" in scores.info[1] and "the sound is empty" in scores.info[2]
    half = load_reward(name)(rollout(samples[3:, :, : RATE // 2], RATE))
    assert scores.value[3].item() == pytest.approx(half.value.item(), abs=1e-5)


def test_options_out_of_range_are_said():
    with pytest.raises(ConfigError, match=r"tolerance: must be at least 0 \(got -1\.0\)"):
        value("loudness", sine(), tolerance=-1.0)
    with pytest.raises(ConfigError, match=r"seconds: must be at least 0 \(got -2\.0\)"):
        load_reward("duration", seconds=-2.0)(Rollout([Prompt("a")], Audio(sine()[None, None], RATE), torch.arange(1)))


# audiobox-aesthetics -----------------------------------------------------------------------------------------------


def test_aesthetics_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics.infer", None)
    with pytest.raises(MissingExtra, match=r"audiobox-aesthetics\) needs the 'aesthetics' extra: pip install"):
        load_reward("aesthetics")(rollout(sine()[None, None], RATE))


@pytest.mark.parametrize("answer", [dict, json.dumps])
def test_aesthetics_calls_the_packages_predictor(monkeypatch, answer):
    """A stand-in that answers as its `forward` does: one dict (0.0.4) or JSON (before) per sound."""
    batches = []

    def forward(batch):
        batches.extend(batch)
        return [answer({"CE": 5.0, "CU": 6.0, "PC": 3.0, "PQ": float(item["path"].shape[1] / 1000)}) for item in batch]

    made = lambda checkpoint: types.SimpleNamespace(forward=forward)  # noqa: E731
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics", types.ModuleType("audiobox_aesthetics"))
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics.infer", types.SimpleNamespace(initialize_predictor=made))
    samples = sine(seconds=0.5).expand(3, 2, -1).clone()
    samples[1, 0, 0] = float("nan")
    scores = load_reward("aesthetics")(rollout(samples, RATE))
    assert scores.status.tolist() == [Status.OK, Status.ERROR, Status.OK]
    assert scores.value[[0, 2]].tolist() == [8.0, 8.0] and scores.value[1].isnan() and scores.parts["PC"][0] == 3.0
    assert [item["sample_rate"] for item in batches] == [RATE] * 2 and batches[0]["path"].shape == (2, 8000)
    assert load_reward("aesthetics", axis="mean")(rollout(samples, RATE)).value[0].item() == pytest.approx(5.5)


def test_scores_of_aesthetics_go_with_the_bytes_of_its_checkpoint(monkeypatch, tmp_path):
    file, installed = tmp_path / "checkpoint.pt", "0.0.4"
    file.write_bytes(b"one")
    monkeypatch.setattr("importlib.metadata.version", lambda name: installed)
    first = identity(load_reward("aesthetics", checkpoint=str(file)))
    assert identity(load_reward("aesthetics", checkpoint=str(file))) == first
    file.write_bytes(b"another")
    assert identity(load_reward("aesthetics", checkpoint=str(file))) != first
    published = load_reward("aesthetics").fingerprint()
    assert "audiobox-aesthetics 0.0.4" in published
    assert published != load_reward("aesthetics", checkpoint=str(file)).fingerprint()
    installed = "0.0.5"
    assert load_reward("aesthetics").fingerprint() != published
    with pytest.raises(ConfigError, match=r"gone\.pt: no such file"):
        load_reward("aesthetics", checkpoint=str(tmp_path / "gone.pt"))
