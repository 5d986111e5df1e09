"""What can be measured of a clip before anything is named: its spectrum over time, and when its notes begin."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mmalign.miniworld.tunes.tune import RATE

#: Samples that one spectrum looks at, and from one spectrum to the next.
WINDOW, STEP = 1024, 128
LOWEST, HIGHEST = 150.0, 7_600.0
#: Rises of the spectrum are measured over this many steps; two notes are at least `_APART` steps apart.
_RISE, _APART = 4, 9
#: A rise counts as a note from this share of the typical strong one. Truth: notes above 0.32, all else below 0.17.
_LEAST_RISE = 0.28
#: Strength, relative to the loudest in the clip, below which changes hardly count.
_QUIET = 0.1
#: A clip whose loudest spectrum is below this is silent (about -80 dB).
_SILENT = 1e-2
_FREQUENCIES = np.fft.rfftfreq(WINDOW, 1 / RATE)
_HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)


class Beginnings(NamedTuple):
    """When notes begin, as places in the spectrogram, and one place more: where the last note is taken to end."""

    places: np.ndarray
    end: int


def power_spectrogram(sound: np.ndarray) -> np.ndarray:
    """Power of a clip ``(samples,)`` at ``RATE`` Hz, ``(samples // STEP, WINDOW // 2 + 1)`` float32."""
    padded = np.pad(np.nan_to_num(sound.astype(np.float32), posinf=0, neginf=0), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP][: len(sound) // STEP]
    return np.abs(np.fft.rfft(frames * _HANN, axis=1)).astype(np.float32) ** 2


def tone_power(frequency: float) -> np.ndarray:
    """Power spectrum ``(WINDOW // 2 + 1,)`` of a steady sine of strength one."""
    wave = np.cos(2 * np.pi * frequency * np.arange(WINDOW) / RATE)
    return np.abs(np.fft.rfft(wave * _HANN)) ** 2


@lru_cache(maxsize=2)
def bands(count: int) -> np.ndarray:
    """``(WINDOW // 2 + 1, count)``: triangles even on the mel scale, which turn a power spectrum into bands."""
    edges = _hertz(np.linspace(_mel(LOWEST), _mel(HIGHEST), count + 2))
    # A triangle can be narrower than one frequency step: average it over each.
    frequencies = _FREQUENCIES[:, None, None] + np.linspace(-0.5, 0.5, 16) * _FREQUENCIES[1]
    low, centre, high = (edges[i : count + i, None] for i in range(3))
    triangles = (
        np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre)).clip(0).mean(axis=2)
    )
    triangles.setflags(write=False)
    return triangles.astype(np.float32)


def _mel(frequency: float) -> float:
    """Slaney's scale: even steps up to 1 kHz, even ratios above."""
    return frequency * 3 / 200 if frequency < 1000 else 15 + 27 * np.log(frequency / 1000) / np.log(6.4)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def beginnings(power: np.ndarray) -> Beginnings:
    """Find the notes of a spectrogram: peaks of how much all its bands rise; none in a silent one."""
    strength = np.sqrt(power @ bands(40))
    nothing = Beginnings(np.empty(0, dtype=int), 0)
    if len(strength) <= _RISE or strength.max() < _SILENT:
        return nothing
    loudness = _smoothed(np.log(strength / strength.max() + _QUIET))
    rise = np.zeros(len(loudness))
    rise[_RISE:] = (loudness[_RISE:] - loudness[:-_RISE]).clip(0).sum(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(rise, _APART - 1), 2 * _APART - 1).max(axis=1)
    peaks = np.flatnonzero((rise == around) & (rise > 0))
    # The first note rises out of silence, higher than the others: what is typical are the next three.
    typical = np.sort(rise[peaks])[::-1][1:4]
    if not len(typical):
        return nothing
    places = peaks[rise[peaks] >= _LEAST_RISE * typical.mean()]
    usual = int(np.median(np.diff(places))) if len(places) > 1 else len(power)
    return Beginnings(places, min(len(power), int(places[-1]) + usual))


def _smoothed(rows: np.ndarray) -> np.ndarray:
    """Means of three neighbouring rows."""
    padded = np.pad(rows, ((1, 1), (0, 0)), mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def decay(power: np.ndarray, notes: Beginnings) -> float:
    """How fast the longer notes die away, in 1/s: about 0 where they are sustained, above 3 where struck or plucked."""
    level = 0.5 * np.log(power.sum(axis=1) + 1e-12)
    ends = np.append(notes.places[1:], notes.end)
    lengths = ends - notes.places
    slopes = []
    for start, length in zip(notes.places, lengths, strict=True):
        # From after the attack to before the release.
        part = level[start + 50 * RATE // (1000 * STEP) : start + int(0.62 * length)]
        if length >= 0.6 * lengths.max() and len(part) >= 3:
            slopes.append(-np.polyfit(np.arange(len(part)) * STEP / RATE, part, 1)[0])
    return float(np.median(slopes)) if slopes else float("nan")
