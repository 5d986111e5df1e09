"""Plain sounds as rollouts, and tiny random checkpoints of the real classes that hear them."""

import math

import torch

from mmalign.core.types import Audio, Prompt, Rollout

RATE = 4000  # of the tiny models; one window is one second


def tones(n=4, seconds=0.6, rate=RATE, channels=1, seed=0):
    """`n` decaying tones with noise, group-major by two."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate)) / rate
    rows = []
    for row in range(n):
        wave = 0.4 * torch.sin(2 * math.pi * (220 * (1 + row)) * time) * torch.exp(-time * row)
        rows.append((wave + 0.02 * torch.randn(channels, len(time), generator=rng)).clamp(-1, 1))
    return rollout(torch.stack(rows), rate)


def rollout(samples, rate=RATE, texts=("a red circle", "two blue square"), mask=None, **more):
    prompts = [Prompt(texts[row // 2 % len(texts)], meta={"seconds": 1.0}) for row in range(len(samples))]
    return Rollout(prompts, Audio(samples, rate, mask), torch.arange(len(samples)) // 2, **more)


def write_tones(folder, n=5, rate=RATE, seed=3):
    """`n` sound files of differing rates, lengths and channels."""
    from mmalign.media.audio import write_audio

    folder.mkdir(parents=True, exist_ok=True)
    for row in range(n):
        made = tones(1, 0.4 + 0.3 * row, rate * (1 + row % 2), 1 + row % 2, seed + row)
        suffix = (".wav", ".flac")[row % 2]
        write_audio(made.output.samples[0], made.output.rate, folder / f"{row}{suffix}")
    return folder
