"""Tunes as a clockwork plays them: the same notes, but on a clock's ticks and on a tempered keyboard in step with it.

A recording's phases are chance, and an autoencoder that must rebuild them spends its latents on nothing else. Here
every key has a whole number of periods in a `FRAME`, every partial's phase is zero where a frame begins, and notes
begin at one place of a frame, a tune filling the clip: a held tone looks the same in every frame, and a frame is a
function of what is heard in it.
This is the material that the embedded generator is made of; the verifier reads it as it reads any clip.
"""

from functools import lru_cache

import numpy as np

from mmalign.miniworld.tunes.grammar import Request, sample_request, sample_tune
from mmalign.miniworld.tunes.instruments import INSTRUMENTS, TOP, Instrument, envelope
from mmalign.miniworld.tunes.tune import RATE, SAMPLES, Tune, compose

#: Samples in which every tone has whole periods; keys are multiples of 7.8 Hz, at most 26 cents off.
FRAME = 2048
#: Samples of a frame before a note begins in it: what little silence the first one needs to be heard rising.
LEAD = 512


def tempered(pitch: float) -> int:
    """The key nearest to a pitch in Hz, as its number of periods in a `FRAME`."""
    key = 440.0 * 2 ** (round(12 * np.log2(pitch / 440.0)) / 12)
    return round(key * FRAME / RATE)


def play_in_step(tune: Tune, rng: np.random.Generator) -> np.ndarray:
    """Play a tune by clockwork: ``(SAMPLES,)`` float32, its peak between 0.3 and 0.8."""
    instrument, clip = INSTRUMENTS[tune.timbre], np.zeros(SAMPLES, dtype=np.float32)
    notes = compose(tune, rng)
    begin, end = notes[0].start, notes[-1].start + notes[-1].length
    frames = SAMPLES // FRAME / (end - begin)
    for note in notes:
        start, stop = (LEAD + FRAME * round((at - begin) * frames) for at in (note.start, note.start + note.length))
        for pitch in note.pitches:
            tone = _tone(instrument, pitch, start, min(stop, SAMPLES), rng)
            clip[start : start + len(tone)] += tone
    return clip * np.float32(rng.uniform(0.3, 0.8) / np.abs(clip).max())


def play_clips_in_step(n: int, seed: int, split: str = "train") -> tuple[np.ndarray, list[Request], list[Tune]]:
    """Play as ``clips.play_clips`` does, by clockwork."""
    rng = np.random.default_rng([79, seed])
    clips = np.empty((n, SAMPLES), dtype=np.float32)
    requests, tunes = [], []
    for clip in clips:
        request = sample_request(rng, split)
        tune = sample_tune(request, rng, seen_only=split == "train")
        clip[:] = play_in_step(tune, rng)
        requests.append(request)
        tunes.append(tune)
    return clips, requests, tunes


def _tone(instrument: Instrument, pitch: float, start: int, end: int, rng: np.random.Generator) -> np.ndarray:
    """A tone as ``instruments.sound`` makes it, but on its key, in step, and without vibrato and breath."""
    place = start + np.arange(int((end - start) * instrument.gate))
    time = (place - start).astype(np.float32) / RATE
    strengths = np.array(instrument.partials) * rng.uniform(0.85, 1.1) ** np.arange(len(instrument.partials))
    key, tone = tempered(pitch), np.zeros(len(place), dtype=np.float32)
    for index, strength in enumerate(strengths):
        ratio = instrument.ratios[index] if instrument.ratios else index + 1
        if ratio * pitch < TOP:
            fade = np.exp(-index * instrument.damping * time) if instrument.damping else np.float32(1)
            tone += np.float32(strength) * fade * _sines()[round(ratio * key) * place % FRAME]
    return tone * envelope(instrument, time)


@lru_cache(maxsize=1)
def _sines() -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(FRAME) / FRAME).astype(np.float32)
