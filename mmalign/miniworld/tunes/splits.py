"""Deterministic train and held-out requests, and the prompt files made from them.

``python -m mmalign.miniworld.tunes.splits`` rewrites ``assets/prompts/tunes_*.txt``.
"""

import argparse
from pathlib import Path

from mmalign.miniworld.drawing import Drawing
from mmalign.miniworld.tunes.grammar import Request, sample_request

_DRAWING = Drawing(sample_request, {"train": 37, "heldout": 41})


def train_requests(n: int, seed: int = 0) -> list[Request]:
    """``n`` requests (repeats possible) none of which contains a held-out composition."""
    return _DRAWING.requests("train", n, seed)


def heldout_requests(n: int, seed: int = 0) -> list[Request]:
    """``n`` requests (repeats possible) each of which contains at least one composition never heard in training."""
    return _DRAWING.requests("heldout", n, seed)


def distinct_requests(split: str, n: int, seed: int = 0) -> list[Request]:
    """``n`` requests with different texts, in the order in which they were first drawn (at most 600 are held out)."""
    return _DRAWING.distinct(split, n, seed)


def write_prompt_files(folder: Path, train: int = 1000, heldout: int = 256) -> None:
    """Write ``tunes_train.txt`` and ``tunes_heldout.txt``, one distinct caption a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", train), ("heldout", heldout)):
        lines = [request.text for request in distinct_requests(split, n)]
        (folder / f"tunes_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=write_prompt_files.__doc__)
    arguments.add_argument("--out", type=Path, default=Path("assets/prompts"))
    write_prompt_files(arguments.parse_args().out)
