"""Speech, its quality and pitch: refusals without the packages, and real recordings where they are installed."""

import math
import sys

import pytest
import torch

from mmalign.core.errors import MissingExtra
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.rewards import load_reward
from mmalign.testing import check_reward
from pipelines.real.senses import MUSIC, SPEECH, faster, noisy, pitched, recording

RATE = 16_000
PACKAGES = {"speech": "silero_vad", "speech_quality": "speechmos", "pitch": "torchcrepe"}


def rollout(sound: Audio, *, rows: int = 1, **meta) -> Rollout:
    samples = sound.samples.expand(rows, -1, -1)
    return Rollout([Prompt("", meta=meta)] * rows, Audio(samples, sound.rate), torch.arange(rows))


def voice(hertz: float, seconds: float = 0.6) -> Audio:
    """Ten harmonics, as a voice or a string has."""
    time = torch.arange(int(seconds * RATE)) / RATE
    wave = torch.stack([torch.sin(2 * math.pi * k * hertz * time) / k for k in range(1, 11)]).sum(0)
    return Audio(0.2 * wave[None, None], RATE)


@pytest.mark.parametrize("name", PACKAGES)
def test_without_the_package_it_says_what_to_install(name, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingExtra, match=r"needs the 'speech' extra: pip install 'mmalign\[speech\]'"):
        load_reward(name).prepare()


@pytest.mark.real
@pytest.mark.slow
def test_speech_is_told_from_music() -> None:
    pytest.importorskip("silero_vad", reason="the extra `speech` is not installed")
    reward, threads = load_reward("speech"), torch.get_num_threads()
    spoken = [float(reward(rollout(recording(name))).value) for name in SPEECH]
    played = [float(reward(rollout(recording(name))).value) for name in MUSIC]
    assert min(spoken) > 0.5 > 0.2 > max(played)
    assert torch.get_num_threads() == threads
    check_reward(reward, rollout(voice(220), rows=2))


@pytest.mark.real
@pytest.mark.slow
def test_quality_falls_with_noise() -> None:
    pytest.importorskip("speechmos", reason="the extra `speech` is not installed")
    reward, sound = load_reward("speech_quality"), recording(SPEECH[0])
    clean, noise = (float(reward(rollout(noisy(sound, snr))).value) for snr in (40, 0))
    assert clean > noise + 0.5
    assert reward(rollout(Audio(torch.zeros(1, 1, RATE), RATE))).status.item() == Status.NOT_APPLICABLE


@pytest.mark.real
def test_the_pitch_that_is_asked_for_scores_best() -> None:
    pytest.importorskip("torchcrepe", reason="the extra `speech` is not installed")
    reward = load_reward("pitch")
    for hertz in (110.0, 220.0, 440.0):
        scores = [float(reward(rollout(voice(hertz), hertz=hertz * 2 ** (c / 1200))).value) for c in (0, 100, 300)]
        assert scores[0] > 0.95 and scores[1] == pytest.approx(1 - 100 / 600, abs=0.05), (hertz, scores)
        assert scores[0] > scores[1] > scores[2]
    up = rollout(voice(220), hertz=440.0)
    assert float(reward(up).value) == 0 and float(load_reward("pitch", octaves="any")(up).value) > 0.95
    own = list(pitched(recording(SPEECH[0])).values())
    assert own == sorted(own, reverse=True) and faster(voice(220), 1200).rate == 2 * RATE


@pytest.mark.real
def test_pitch_hears_what_torchcrepe_hears_and_has_a_gradient() -> None:
    crepe = pytest.importorskip("torchcrepe", reason="the extra `speech` is not installed")
    reward, sound = load_reward("pitch"), voice(196.0)
    cents, _ = reward.frame_pitches(sound.samples[0, 0])
    theirs = crepe.predict(sound.samples[0], RATE, 160, 50.0, 1900.0, "tiny", decoder=crepe.decode.weighted_argmax)[0]
    inside = slice(5, -5)
    assert ((1200 * (theirs / 10).log2() - cents)[inside].abs() < 10).all()
    samples = sound.samples.clone().requires_grad_()
    scores = reward(rollout(Audio(samples, RATE), hertz=200.0))
    scores.value.sum().backward()
    assert samples.grad.abs().max() > 0
    check_reward(reward, rollout(sound, rows=2, hertz=196.0))


@pytest.mark.real
def test_statuses_of_pitch() -> None:
    pytest.importorskip("torchcrepe", reason="the extra `speech` is not installed")
    reward = load_reward("pitch")
    noise = Audio(torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1, RATE)
    assert reward(rollout(noise, hertz=200)).status.item() == Status.PARSE_FAIL
    assert reward(rollout(voice(200))).status.item() == Status.NOT_APPLICABLE
    bad = reward(rollout(voice(200), hertz="high"))
    assert bad.status.item() == Status.ERROR and "is a frequency in Hz or several, found 'high'" in bad.info[0]
    assert reward(rollout(Audio(torch.full((1, 1, 99), math.nan), RATE), hertz=200)).status.item() == Status.ERROR
