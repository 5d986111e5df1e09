"""A stretch of a sound brought to what a generator makes, of which nothing else is decoded.

It is what `sound_fit` makes of the whole sound and then cuts: a resampled sample depends on a known number of samples
at its sides, which are decoded with it. Sums may be rounded in another order (1e-6 of full scale).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.media.audio import decode_part, part_shape
from mmalign.media.sound_fit import REACH, SoundTarget, converted

__all__ = ["part_of"]


def part_of(data: bytes, name: str, target: SoundTarget, start_of: Callable[[int], int]) -> Float[Tensor, "c s"] | None:
    """Decode a stretch of at most `target.samples` samples; None of a format in which no exact place can be found.

    Args:
        data: the file.
        name: where it came from, for errors.
        target: what the generator makes, of a known length.
        start_of: where the stretch begins, given the samples of the whole sound at the target's rate.

    Raises:
        MediaError: as `decode_audio`, as far as the stretch goes.
    """
    shape = part_shape(data, name)
    if shape is None or target.samples is None:
        return None
    common = math.gcd(shape.rate, target.rate)
    have, want = shape.rate // common, target.rate // common  # samples of a block, before and after
    start = start_of(-(-shape.samples * want // have))
    first, last = start // want, -(-(start + target.samples) // want)  # blocks
    aside = 0 if have == want else math.ceil(REACH / min(1.0, want / have) / have) + 1
    begin = max(0, first - aside) * have
    samples, rate = decode_part(data, name, begin, min(shape.samples, (last + aside) * have))
    made = converted(torch.from_numpy(samples), rate, target)
    offset = start - begin // have * want
    return made[..., offset : offset + target.samples].contiguous()
