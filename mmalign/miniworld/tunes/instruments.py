"""Five instruments, each a few numbers: how strong its partials are, how it starts, and how it dies away."""

from dataclasses import dataclass, replace

import numpy as np

from mmalign.miniworld.tunes.tune import RATE

#: Partials above this (Hz) are left out: clear of folding, and of what small mel spectra show.
TOP = 7_000.0
_RELEASE = 0.025  # seconds in which a note ends


@dataclass(frozen=True)
class Instrument:
    """How one tone sounds.

    Args:
        partials: their strengths, the lowest first.
        ratios: their frequencies over the lowest, where they are not 1, 2, 3, …
        attack: seconds until a tone is at its full strength.
        decay: how fast it then falls, in 1/s; 0 where the player sustains it.
        damping: how much faster each further partial falls, in 1/s.
        gate: the share of its time that a note sounds.
        vibrato: depth in semitones.
        breath: strength of the noise in it.
    """

    partials: tuple[float, ...]
    ratios: tuple[float, ...] | None = None
    attack: float = 0.003
    decay: float = 0.0
    damping: float = 0.0
    gate: float = 1.0
    vibrato: float = 0.0
    breath: float = 0.0


INSTRUMENTS = {
    "flute": Instrument((1.0, 0.22, 0.05), attack=0.03, gate=0.9, vibrato=0.06, breath=0.012),
    "clarinet": Instrument(
        (1.0, 0.02, 0.6, 0.03, 0.42, 0.03, 0.3, 0.02, 0.2, 0.0, 0.14), attack=0.015, gate=0.9, breath=0.003
    ),
    "violin": Instrument(tuple(k**-0.8 for k in range(1, 17)), attack=0.035, gate=0.92, vibrato=0.1),
    "harp": Instrument(tuple(k**-0.6 for k in range(1, 17)), decay=6.0, damping=0.8),
    "bell": Instrument((1.0, 0.55, 0.35), ratios=(1.0, 2.756, 5.404), attack=0.002, decay=4.0, damping=2.0),
}


def unnamed(rng: np.random.Generator) -> Instrument:
    """An instrument that no caption names: partials between those of two of the five, the envelope of one."""
    one, other, envelope = (list(INSTRUMENTS.values())[i] for i in rng.integers(len(INSTRUMENTS), size=3))
    share, length = rng.uniform(0.25, 0.75), max(len(one.partials), len(other.partials))
    logs = [np.log(np.pad(each.partials, (0, length - len(each.partials))) + 1e-3) for each in (one, other)]
    partials = np.exp((1 - share) * logs[0] + share * logs[1] + rng.normal(0, 0.3, size=length))
    bell = one.ratios or other.ratios
    ratios = tuple(1 + (ratio - 1) * rng.uniform(0.8, 1.2) for ratio in bell) if bell and rng.random() < 0.5 else None
    amplitudes = partials[: len(ratios)] if ratios else partials
    return replace(envelope, partials=tuple(map(float, amplitudes)), ratios=ratios)


def sound(instrument: Instrument, pitch: float, length: float, rng: np.random.Generator) -> np.ndarray:
    """The wave of one tone.

    Args:
        instrument: who plays it.
        pitch: Hz.
        length: seconds.
        rng: decides the phase, the brightness and the speed of the vibrato.

    Returns:
        ``(round(length * gate * RATE),)`` float32.
    """
    time = np.arange(round(length * instrument.gate * RATE), dtype=np.float32) / RATE
    phase = np.float32(2 * np.pi * pitch) * time + np.float32(rng.uniform(0, 2 * np.pi))
    if instrument.vibrato:
        speed, depth = rng.uniform(4.5, 6.0), instrument.vibrato * np.log(2) / 12
        phase += np.float32(pitch / speed * depth) * np.sin(np.float32(2 * np.pi * speed) * time)
    strengths = np.array(instrument.partials) * rng.uniform(0.85, 1.1) ** np.arange(len(instrument.partials))
    if instrument.ratios is None:
        tone = harmonics(phase, strengths[: int(TOP / pitch)], instrument.damping * time)
    else:
        tone = np.zeros_like(time)
        for index, (strength, ratio) in enumerate(zip(strengths, instrument.ratios, strict=True)):
            if ratio * pitch < TOP:
                tone += np.float32(strength) * np.exp(-index * instrument.damping * time) * np.sin(ratio * phase)
    if instrument.breath:
        tone += np.float32(instrument.breath) * rng.standard_normal(len(time), dtype=np.float32)
    return tone * envelope(instrument, time)


def harmonics(phase: np.ndarray, strengths: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Sum of ``strengths[k] sin((k + 1) phase) exp(-k damping)``, by Horner's rule: no sine but the first."""
    turn = np.empty(len(phase), dtype=np.complex64)
    turn.real, turn.imag = np.cos(phase), np.sin(phase)
    damped = turn * np.exp(-damping) if damping.any() else turn
    total = np.full_like(turn, strengths[-1])
    for strength in strengths[-2::-1]:
        total *= damped
        total += np.complex64(strength)
    return (total * turn).imag


def envelope(instrument: Instrument, time: np.ndarray) -> np.ndarray:
    """Strength over time: a rounded attack, the decay, and a short release."""
    rise = np.clip(time / instrument.attack, 0, 1)
    fall = np.clip((time[-1] - time) / _RELEASE, 0, 1) if len(time) else time
    return (rise * rise * (3 - 2 * rise) * fall * np.exp(-instrument.decay * time)).astype(np.float32)
