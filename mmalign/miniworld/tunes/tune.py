"""What a tune is: six attributes, and the notes that a player makes of them."""

from typing import NamedTuple

import numpy as np

RATE = 16_000
SAMPLES = 32_768  # 2.048 s
#: Every attribute and its values, in the order in which captions state them.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "tempo": ("slow", "fast"),
    "rhythm": ("even", "dotted"),
    "direction": ("rising", "falling", "repeated"),
    "register": ("low", "high"),
    "timbre": ("flute", "clarinet", "violin", "harp", "bell"),
    "texture": ("notes", "major chords", "minor chords"),
}
#: Notes in a clip, and how many of them a second, at each tempo.
COUNTS = {"slow": 4, "fast": 8}
PACES = {"slow": 2.15, "fast": 4.3}
#: Semitones above the lowest tone of a chord.
CHORDS = {"notes": (0,), "major chords": (0, 4, 7), "minor chords": (0, 3, 7)}
#: Lowest and highest pitch (Hz) of a tune's lowest note; a rising or falling tune spans an octave above it.
GROUND = {"low": (262.0, 330.0), "high": (784.0, 988.0)}
#: What a repeated note may lie above the ground, in semitones.
REPEATED_AT = 9.0
_ARPEGGIOS = ((0, 4, 7, 12), (0, 3, 7, 12), (0, 5, 9, 12), (0, 5, 8, 12))
_SCALES = ((0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 10, 12), (0, 2, 3, 5, 7, 9, 10, 12))


class Tune(NamedTuple):
    """One value of every attribute in ``ATTRIBUTES``."""

    tempo: str
    rhythm: str
    direction: str
    register: str
    timbre: str
    texture: str


class Note(NamedTuple):
    """One or three tones struck together."""

    start: float  # seconds from the beginning of the clip
    length: float  # seconds until the next note starts
    pitches: tuple[float, ...]  # Hz


def compose(tune: Tune, rng: np.random.Generator) -> list[Note]:
    """The notes of a tune.

    Args:
        tune: what to play.
        rng: decides the exact pace, the key, the scale and the slight detuning of every note.
    """
    count = COUNTS[tune.tempo]
    starts = rng.uniform(0.02, 0.06) + _beats(tune.rhythm, count) / (PACES[tune.tempo] * rng.uniform(0.96, 1.04))
    low, high = GROUND[tune.register]
    ground = low * (high / low) ** rng.random()
    steps = _steps(tune.direction, count, rng) + rng.uniform(-0.06, 0.06, size=count)
    return [
        Note(
            float(start), float(end - start), tuple(ground * 2 ** ((step + tone) / 12) for tone in CHORDS[tune.texture])
        )
        for start, end, step in zip(starts[:-1], starts[1:], steps, strict=True)
    ]


def _beats(rhythm: str, count: int) -> np.ndarray:
    """``(count + 1,)``: when each note starts and the last ends, in mean note lengths."""
    lengths = np.tile([1.5, 0.5] if rhythm == "dotted" else [1.0, 1.0], count // 2)
    return np.concatenate([[0.0], np.cumsum(lengths)])


def _steps(direction: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``(count,)`` semitones above the ground."""
    if direction == "repeated":
        return np.full(count, rng.uniform(0, REPEATED_AT))
    ways = _ARPEGGIOS if count == len(_ARPEGGIOS[0]) else _SCALES
    rising = np.array(ways[rng.integers(len(ways))], dtype=float)
    return rising if direction == "rising" else rising[::-1]
