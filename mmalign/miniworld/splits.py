"""Deterministic train and held-out requests, and the prompt files made from them.

``python -m mmalign.miniworld.splits`` rewrites ``scenes_*.txt``, ``contrasts_*.jsonl`` and ``requests_*.jsonl`` of
``assets/prompts``.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.miniworld.colloquial import pairs
from mmalign.miniworld.drawing import Drawing
from mmalign.miniworld.grammar import Request, hard_negatives, sample_request

#: How many wrong captions a contrast has; with the right one a CLIP chooses among sixteen.
WRONG = 15
_DRAWING = Drawing(sample_request, {"train": 11, "heldout": 23})


def train_requests(n: int, seed: int = 0) -> list[Request]:
    """``n`` requests (repeats possible) none of which contains a held-out composition."""
    return _DRAWING.requests("train", n, seed)


def heldout_requests(n: int, seed: int = 0) -> list[Request]:
    """``n`` requests (repeats possible) each of which contains at least one composition never seen in training."""
    return _DRAWING.requests("heldout", n, seed)


def distinct_requests(split: str, n: int, seed: int = 0) -> list[Request]:
    """``n`` requests with different texts, in the order in which they were first drawn."""
    return _DRAWING.distinct(split, n, seed)


def write_prompt_files(folder: Path, train: int = 1000, heldout: int = 256) -> None:
    """Write the files of the splits train and heldout, which stand for ``*``.

    ``scenes_*.txt`` has a distinct caption a line, ``contrasts_*.jsonl`` the same captions with others that are wrong
    where they are right, ``requests_*.jsonl`` everyday wordings of such captions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", train), ("heldout", heldout)):
        requests = distinct_requests(split, n)
        _write(folder / f"scenes_{split}.txt", (request.text for request in requests))
        _write(folder / f"contrasts_{split}.jsonl", map(json.dumps, contrasts(requests, split)))
        wordings = pairs(n, _DRAWING.salt[split], partial(sample_request, split=split))
        rows = ({"prompt": text, "request": request.text} for text, request in wordings)
        _write(folder / f"requests_{split}.jsonl", map(json.dumps, rows))


def contrasts(requests: list[Request], split: str) -> Iterator[dict[str, Any]]:
    """Captions with `WRONG` others that differ in an attribute, a count or a relation; those of train stay in it."""
    rng = np.random.default_rng([_DRAWING.salt[split], WRONG])
    for request in requests:
        negatives = hard_negatives(request, WRONG, rng, split="train" if split == "train" else "any")
        yield {"prompt": request.text, "negatives": [other.text for other in negatives]}


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=write_prompt_files.__doc__)
    arguments.add_argument("--out", type=Path, default=Path("assets/prompts"))
    write_prompt_files(arguments.parse_args().out)
