"""Rewards for runs that are stopped or wait: one that takes its time, one that tells that it began."""

import os
import time
from pathlib import Path

from mmalign.core.types import Prompt
from mmalign.rewards import rule


@rule(modalities={"text"}, range=(0.0, 1.0))
def slow(prompt: Prompt, output: str) -> float:
    """The share of an answer's letters that are `o`; asleep for $SLOW seconds on process $SLOW_RANK (all, by default).

    Each call adds a line to the file $CALLED.
    """
    if called := os.environ.get("CALLED"):
        with Path(called).open("a") as file:
            file.write(f"{os.environ.get('RANK', '0')}\n")
    if os.environ.get("SLOW_RANK", os.environ.get("RANK", "0")) == os.environ.get("RANK", "0"):
        time.sleep(float(os.environ.get("SLOW", "0")))
    return output.count("o") / max(len(output), 1)
