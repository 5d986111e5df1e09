"""Reading a clip back: which tune it plays, and which clauses of a request hold of it.

Nothing about the tune is known beforehand. Notes begin where the spectrum rises; each note's spectrum is compared with
what every timbre, texture and pitch would look like; which timbres come into question is told by how
notes die away.
What cannot be told is ``UNKNOWN``, of which no clause holds.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mmalign.miniworld.tunes.instruments import INSTRUMENTS, TOP
from mmalign.miniworld.tunes.language import Request, holds
from mmalign.miniworld.tunes.listening import STEP, Beginnings, bands, beginnings, decay, power_spectrogram, tone_power
from mmalign.miniworld.tunes.tune import CHORDS, RATE, SAMPLES, Tune

UNKNOWN = "unknown"
#: Notes a second that are read as slow and as fast.
SLOW, FAST = (1.6, 2.8), (3.4, 6.0)
#: How much longer one of two neighbouring notes is where the rhythm is even, and where it is dotted.
EVEN, DOTTED = (1.0, 1.6), (2.1, 4.5)
#: The share of neighbouring notes that must agree on the rhythm, or on the direction.
AGREEMENT = 0.7
#: Semitones: a rising tune climbs at least `CLIMB` in all and `TREAD` at a step; a repeated note stays within `STAY`.
CLIMB, TREAD, STAY = 4.0, 0.4, 1.5
#: Hz: median pitches of low and of high tunes.
LOW, HIGH = (230.0, 600.0), (680.0, 2000.0)
#: Least mean correlation of the notes' spectra with the best-fitting timbre, texture and pitches.
LIKENESS = 0.6
#: Decay (1/s) up to which notes are held, and from which they are struck or plucked.
HELD, STRUCK = 2.0, 2.6
#: The least share of the clip that the notes take.
FILLED = 0.6
_BANDS = 80
_PITCHES = 240.0 * 2 ** (np.arange(4 * 12 * 3.2) / 48)  # quarter semitones


class Verdict(NamedTuple):
    """What a batch of clips plays of its requests."""

    fraction: np.ndarray  # (B,) float32, share of clauses that hold
    fulfilled: np.ndarray  # (B,) bool, whether all hold
    clauses: list[list[bool]]  # per clip, the truth of every clause
    tunes: list[Tune]  # per clip, what was read


def verify(sound: np.ndarray, request: Request) -> list[bool]:
    """Say which clauses of a request hold in a clip ``(samples,)`` at ``RATE`` Hz; it is fulfilled when all do."""
    return holds(read_tune(sound), request)


def verify_batch(sounds: np.ndarray, requests: list[Request]) -> Verdict:
    """Verify clips ``(B, samples)`` at ``RATE`` Hz (array or tensor) against one request each."""
    if len(sounds) != len(requests):
        raise ValueError(f"verify_batch got {len(sounds)} clips but {len(requests)} requests: pass one for each")
    tunes = [read_tune(sound) for sound in sounds]
    clauses = [holds(tune, request) for tune, request in zip(tunes, requests, strict=True)]
    fraction = np.array([np.mean(truths) for truths in clauses], dtype=np.float32)
    return Verdict(fraction, np.array([all(truths) for truths in clauses], dtype=bool), clauses, tunes)


def read_tune(sound: np.ndarray) -> Tune:
    """Read a clip ``(samples,)`` at ``RATE`` Hz (array or CPU tensor) into the tune that it plays."""
    samples = np.asarray(sound)
    if samples.ndim != 1:
        raise ValueError(f"read_tune got sound of shape {samples.shape}: pass one channel (samples,) at {RATE} Hz")
    power = power_spectrogram(samples)
    notes = beginnings(power)
    if len(notes.places) < 3:
        return Tune(*[UNKNOWN] * len(Tune._fields))
    tempo, rhythm = _read_time(notes, len(power))
    fall = decay(power, notes)
    timbre, texture, pitches = _read_spectra(_note_spectra(power, notes), fall > (HELD + STRUCK) / 2)
    if HELD < fall < STRUCK:
        timbre = UNKNOWN
    return Tune(
        tempo, rhythm, _read_direction(pitches), _named(float(np.median(pitches)), low=LOW, high=HIGH), timbre, texture
    )


def _named(value: float, **ranges: tuple[float, float]) -> str:
    """The name of the range that holds a value."""
    return next((name for name, (least, most) in ranges.items() if least <= value <= most), UNKNOWN)


def _read_time(notes: Beginnings, length: int) -> tuple[str, str]:
    """Read tempo and rhythm."""
    if notes.end - notes.places[0] < FILLED * min(length, SAMPLES // STEP):
        return UNKNOWN, UNKNOWN
    gaps = np.diff(notes.places) * STEP / RATE
    pairs = gaps[1:] + gaps[:-1]  # of a dotted rhythm, too, every two notes last the same
    ratios = np.maximum(gaps[1:], gaps[:-1]) / np.minimum(gaps[1:], gaps[:-1])
    rhythms = [_named(ratio, even=EVEN, dotted=DOTTED) for ratio in ratios]
    rhythm = max(("even", "dotted"), key=rhythms.count)
    agreed = rhythms.count(rhythm) >= AGREEMENT * len(rhythms)
    return _named(2 / float(np.median(pairs)), slow=SLOW, fast=FAST), rhythm if agreed else UNKNOWN


def _read_direction(pitches: np.ndarray) -> str:
    """Where the tune goes, from its notes' pitches in Hz."""
    heights = 12 * np.log2(pitches)
    if np.ptp(heights) <= STAY:
        return "repeated"
    for direction, steps in (("rising", np.diff(heights)), ("falling", -np.diff(heights))):
        if steps.sum() >= CLIMB and (steps >= TREAD).mean() >= AGREEMENT:
            return direction
    return UNKNOWN


def _note_spectra(power: np.ndarray, notes: Beginnings) -> np.ndarray:
    """Mean power ``(notes, frequencies)`` of each note, from its attack until the next, at most 0.2 s."""
    ends = np.append(notes.places[1:], notes.end)
    parts = [
        (start + 2, max(min(end - 2, start + 28), start + 3)) for start, end in zip(notes.places, ends, strict=True)
    ]
    return np.stack([power[start:end].mean(axis=0) for start, end in parts])


def _read_spectra(power: np.ndarray, struck: bool) -> tuple[str, str, np.ndarray]:
    """Timbre, texture, and the pitch in Hz of every note's lowest tone, from ``(notes, frequencies)``."""
    templates, names = _templates(struck)
    likeness = (_shape(power) @ templates.T).reshape(len(power), len(names), len(_PITCHES))
    by_name = likeness.max(axis=2).mean(axis=0)
    best = int(by_name.argmax())
    pitches = _PITCHES[likeness[:, best].argmax(axis=1)]
    if by_name[best] < LIKENESS:
        return UNKNOWN, UNKNOWN, np.full(len(power), np.nan)
    return *names[best], pitches


@lru_cache(maxsize=2)
def _templates(struck: bool) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """What every timbre and texture looks like at every pitch: rows of bands by name then pitch, and the names."""
    rows, names = [], []
    for timbre in (name for name, instrument in INSTRUMENTS.items() if (instrument.decay > 0) == struck):
        for texture, tones in CHORDS.items():
            names.append((timbre, texture))
            rows += [sum(_tone(timbre, round(48 * tone / 12) + i) for tone in tones) for i in range(len(_PITCHES))]
    return _shape(np.array(rows)), names


@lru_cache(maxsize=2000)
def _tone(timbre: str, index: int) -> np.ndarray:
    """Power spectrum of one tone, `index` quarter semitones above the lowest pitch, as it is soon after its start."""
    instrument, pitch = INSTRUMENTS[timbre], _PITCHES[0] * 2 ** (index / 48)
    ratios = instrument.ratios or range(1, len(instrument.partials) + 1)
    strengths = instrument.partials * np.exp(-0.1 * instrument.damping * np.arange(len(instrument.partials)))
    return sum(s**2 * tone_power(r * pitch) for s, r in zip(strengths, ratios, strict=True) if r * pitch < TOP)


def _shape(power: np.ndarray) -> np.ndarray:
    """Power ``(n, frequencies)`` as bands ``(n, bands)`` whose products are correlations, indifferent to loudness."""
    compressed = (power @ bands(_BANDS)) ** 0.25
    centred = compressed - compressed.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
