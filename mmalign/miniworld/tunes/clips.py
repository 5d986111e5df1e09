"""Batches of truth clips, as training and test data."""

import numpy as np

from mmalign.miniworld.tunes.grammar import Request, sample_request, sample_tune
from mmalign.miniworld.tunes.rendering import render
from mmalign.miniworld.tunes.tune import SAMPLES, Tune


def play_clips(
    n: int, seed: int, split: str = "train", requests: list[Request] | None = None
) -> tuple[np.ndarray, list[Request], list[Tune]]:
    """Play ``n`` truth tunes.

    Args:
        n: how many.
        seed: decides everything.
        split: of the requests; with "train" no held-out composition is played either.
        requests: use these (repeated in order) instead of sampling.

    Returns:
        Clips ``(n, SAMPLES)`` float32 in [-1, 1], the request of each, and the tune of each.
    """
    rng = np.random.default_rng([73, seed])
    clips = np.empty((n, SAMPLES), dtype=np.float32)
    chosen, tunes = [], []
    for index in range(n):
        request = requests[index % len(requests)] if requests else sample_request(rng, split)
        tune = sample_tune(request, rng, seen_only=split == "train")
        clips[index] = render(tune, rng)
        chosen.append(request)
        tunes.append(tune)
    return clips, chosen, tunes
