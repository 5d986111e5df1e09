"""What outputs are like, whatever rewards say of them: lengths, light, colour, loudness, and how many differ.

Rewards that are exploited often show here first: captions grow, pictures saturate, sounds get loud, all answers become
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mmalign.core.types import Audio, Modality

__all__ = ["distinct_share", "output_statistics"]

_QUIET = 1e-5  # root mean square of what counts as silence: -100 dB of full scale


def output_statistics(modality: Modality, outputs: Any) -> dict[str, Float[np.ndarray, " K"]]:
    """Return one value per output and statistic.

    Args:
        modality: decides which.
        outputs: K texts, uint8 pictures (K, 3, H, W), or `Audio` (K, C, N).

    Returns:
        Of texts `words`; of pictures `brightness` and `saturation` (HSV's, of the mean over pixels), both in [0, 1]; of
        sounds `loudness` (decibels of full scale, from the root mean square, at least -100) and `seconds`.
    """
    if len(outputs) == 0:
        return {}
    if modality == "text":
        return {"words": np.array([len(text.split()) for text in outputs], dtype=np.float64)}
    if modality == "image":
        return _of_pictures(np.asarray(outputs))
    return _of_sounds(outputs)


def _of_pictures(pictures: UInt8[np.ndarray, "K 3 H W"]) -> dict[str, Float[np.ndarray, " K"]]:
    pixels = pictures.astype(np.float64) / 255
    brightest, darkest = pixels.max(1), pixels.min(1)
    saturation = (brightest - darkest) / np.maximum(brightest, 1e-9)
    return {"brightness": brightest.mean((1, 2)), "saturation": saturation.mean((1, 2))}


def _of_sounds(sounds: Audio) -> dict[str, Float[np.ndarray, " K"]]:
    samples = sounds.samples.double().numpy()
    audible = np.ones(samples.shape[::2]) if sounds.mask is None else sounds.mask.numpy()
    count = np.maximum(audible.sum(1), 1)
    energy = (samples**2).mean(1) * audible
    root = np.sqrt(energy.sum(1) / count)
    return {"loudness": 20 * np.log10(np.maximum(root, _QUIET)), "seconds": audible.sum(1) / sounds.rate}


def distinct_share(texts: Sequence[str]) -> float:
    """Return the share of texts that no earlier one equals, without regard to case and blanks; 1 for none."""
    return len({" ".join(text.lower().split()) for text in texts}) / len(texts) if texts else 1.0
