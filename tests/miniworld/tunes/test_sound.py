"""Tunes as sound: what is heard is what was asked for, and the verifier believes nothing else."""

import numpy as np
import pytest
import torch

from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.miniworld.tunes.clips import play_clips
from mmalign.miniworld.tunes.grammar import hard_negatives, parse
from mmalign.miniworld.tunes.rendering import render
from mmalign.miniworld.tunes.tune import RATE, SAMPLES, Tune, compose
from mmalign.miniworld.tunes.verifier import UNKNOWN, read_tune, verify, verify_batch
from mmalign.rewards import load_reward

TUNE = Tune("slow", "even", "rising", "high", "flute", "notes")


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, list, list]:
    return play_clips(400, seed=99, split="any")


def test_clips_are_deterministic_sound_in_range(truth: tuple) -> None:
    clips, requests, tunes = truth
    assert clips.shape == (400, SAMPLES) and clips.dtype == np.float32
    peaks = np.abs(clips).max(1)
    assert (peaks >= 0.3 - 1e-6).all() and (peaks <= 0.8 + 1e-6).all()
    again, same, tunes_again = play_clips(5, seed=99, split="any")
    assert (again == clips[:5]).all() and same == requests[:5] and tunes_again == tunes[:5]
    assert not (play_clips(5, seed=98, split="any")[0] == again).all(1).any()
    given = play_clips(3, 0, requests=[parse("fast bell notes")])
    assert [request.text for request in given[1]] == ["fast bell notes"] * 3 and {t.timbre for t in given[2]} == {
        "bell"
    }


def test_a_rendered_tone_has_the_pitch_that_was_composed() -> None:
    """Against a spectrum of the whole first note, zero-padded: an estimate that shares nothing with the verifier."""
    note = compose(TUNE, np.random.default_rng(8))[0]
    clip = render(TUNE, np.random.default_rng(8))
    part = clip[round((note.start + 0.05) * RATE) : round((note.start + 0.8 * note.length) * RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 18))
    assert spectrum.argmax() * RATE / (1 << 18) == pytest.approx(note.pitches[0], rel=0.01)


def test_truth_verifies_and_is_read_back_whole(truth: tuple) -> None:
    clips, requests, tunes = truth
    verdict = verify_batch(clips, requests)
    assert verdict.fulfilled.mean() >= 0.995
    assert (verdict.fraction[verdict.fulfilled] == 1).all()
    assert np.mean([read == played for read, played in zip(verdict.tunes, tunes, strict=True)]) >= 0.99


def test_changed_captions_are_denied(truth: tuple) -> None:
    clips, requests, tunes = truth
    rng, sounds, asked = np.random.default_rng(5), [], []
    for clip, request, tune in zip(clips[:60], requests, tunes, strict=False):
        for other in hard_negatives(request, 4, rng, tune):
            sounds.append(clip)
            asked.append(other)
    assert len(asked) == 240 and verify_batch(np.stack(sounds), asked).fulfilled.mean() <= 0.005


@pytest.mark.parametrize("level", [0.003, 3.0])
def test_loudness_does_not_matter_and_slight_noise_does_not(truth: tuple, level: float) -> None:
    clips, requests, _ = truth
    hiss = 0.003 * np.random.default_rng(0).standard_normal((60, SAMPLES), dtype=np.float32)
    assert verify_batch(level * (clips[:60] + hiss), requests[:60]).fulfilled.mean() >= 0.98


@pytest.mark.parametrize("clip", ["silence", "constant", "nan", "noise", "hum", "click", "short"])
def test_what_is_no_tune_fulfils_nothing(clip: str) -> None:
    time = np.arange(SAMPLES, dtype=np.float32) / RATE
    sound = {
        "silence": np.zeros(SAMPLES, np.float32),
        "constant": np.full(SAMPLES, 0.5, np.float32),
        "nan": np.full(SAMPLES, np.nan, np.float32),
        "noise": 0.2 * np.random.default_rng(0).standard_normal(SAMPLES).astype(np.float32),
        "hum": 0.5 * np.sin(2 * np.pi * 300 * time),
        "click": np.eye(1, SAMPLES, 9000, dtype=np.float32)[0],
        "short": np.ones(1, np.float32),
    }[clip]
    read = read_tune(sound)
    assert not all(verify(sound, parse("slow even low flute notes"))) and UNKNOWN in read


def test_bad_input_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"read_tune got sound of shape \(2, 9\): pass one channel \(samples,\) at 16000"
    ):
        read_tune(np.zeros((2, 9)))
    with pytest.raises(ValueError, match="verify_batch got 2 clips but 1 requests: pass one for each"):
        verify_batch(np.zeros((2, SAMPLES)), [parse("notes")])


def test_the_reward_reads_stereo_other_rates_and_masks(truth: tuple) -> None:
    from torchaudio.functional import resample

    clips, requests, _ = truth
    prompts = [Prompt(request.text) for request in requests[:4]]
    wave = resample(torch.from_numpy(clips[:4])[:, None], RATE, 44_100).expand(-1, 2, -1)
    padded = torch.cat([wave, torch.rand(4, 2, 44_100)], 2)  # noise beyond the mask is not heard
    mask = torch.zeros(4, padded.shape[2], dtype=torch.bool)
    mask[:, : wave.shape[2]] = True
    found = load_reward("verifier")(Rollout(prompts, Audio(padded, 44_100, mask), torch.arange(4)))
    assert found.value.tolist() == [1.0] * 4


def test_the_reward_says_what_it_cannot_judge(truth: tuple) -> None:
    clips, requests, _ = truth
    samples = torch.from_numpy(clips[:4])[:, None].clone()
    samples[1, 0, 7] = float("nan")
    mask = torch.ones(4, SAMPLES, dtype=torch.bool)
    mask[2] = False
    prompts = [Prompt("an oil painting"), *(Prompt(request.text) for request in requests[1:4])]
    prompts[3] = Prompt("something lovely", meta={"request": requests[3].text})
    found = load_reward("verifier")(Rollout(prompts, Audio(samples, RATE, mask), torch.arange(4)))
    assert found.status.tolist() == [Status.NOT_APPLICABLE, Status.ERROR, Status.ERROR, Status.OK]
    assert found.value[:3].isnan().all() and found.value[3] == 1.0
    assert "cannot read 'an'" in found.info[0] and found.info[1] == "the sound is empty or not finite"
