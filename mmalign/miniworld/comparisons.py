"""Comparisons of rewrites: an everyday request, the caption that says the same, and captions that nearly do."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from mmalign.miniworld.colloquial import pairs
from mmalign.miniworld.grammar import hard_negatives, sample_request


def comparisons(count: int, wrong: int = 1, split: str = "train", seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows that reward models are fitted to and measured on.

    Args:
        count: distinct requests.
        wrong: captions of each that differ from it in an attribute, a count or a relation; one gives a preference
            (`rejected` is a text), three a best-of-4 (a list).
        split: of the compositions asked for, "train" or "heldout".
        seed: of wordings and captions.
    """
    rng = np.random.default_rng([23, seed])
    for text, request in pairs(count, seed, partial(sample_request, split=split)):
        unseen = "train" if split == "train" else "any"
        near = [caption.text for caption in hard_negatives(request, wrong, rng, split=unseen)]
        yield {"prompt": text, "chosen": request.text, "rejected": near[0] if wrong == 1 else near}
