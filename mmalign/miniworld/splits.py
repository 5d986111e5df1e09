"""Deterministic train and held-out requests, and the prompt files made from them.

``python -m mmalign.miniworld.splits`` rewrites ``assets/prompts/scenes_*.txt`` and ``requests_*.jsonl``.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from mmalign.miniworld.colloquial import pairs
from mmalign.miniworld.drawing import Drawing
from mmalign.miniworld.grammar import Request, sample_request

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
    """Write ``scenes_*.txt``, a distinct caption a line, and ``requests_*.jsonl``, everyday wordings of such captions.

    ``*`` is train and heldout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", train), ("heldout", heldout)):
        lines = [request.text for request in distinct_requests(split, n)]
        (folder / f"scenes_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        asked = pairs(n, _DRAWING.salt[split], partial(sample_request, split=split))
        rows = [json.dumps({"prompt": text, "request": request.text}) for text, request in asked]
        (folder / f"requests_{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=write_prompt_files.__doc__)
    arguments.add_argument("--out", type=Path, default=Path("assets/prompts"))
    write_prompt_files(arguments.parse_args().out)
