"""Tunes as sound."""

import numpy as np

from mmalign.miniworld.tunes.instruments import INSTRUMENTS, Instrument, sound
from mmalign.miniworld.tunes.tune import RATE, SAMPLES, Tune, compose


def render(tune: Tune, rng: np.random.Generator, instrument: Instrument | None = None) -> np.ndarray:
    """Play a tune.

    Args:
        tune: what to play.
        rng: decides key, pace, tuning, phases, brightness and level: no two performances are equal.
        instrument: who plays it; without one, the tune's timbre.

    Returns:
        ``(SAMPLES,)`` float32 in [-1, 1], mono at ``RATE`` Hz; its peak lies between 0.3 and 0.8.
    """
    instrument = instrument or INSTRUMENTS[tune.timbre]
    clip = np.zeros(SAMPLES, dtype=np.float32)
    for note in compose(tune, rng):
        start = round(note.start * RATE)
        for pitch in note.pitches:
            tone = sound(instrument, pitch, note.length, rng)[: SAMPLES - start]
            clip[start : start + len(tone)] += tone
    return clip * np.float32(rng.uniform(0.3, 0.8) / np.abs(clip).max())
