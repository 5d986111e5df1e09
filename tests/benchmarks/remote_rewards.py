"""Rows a second of rewards on a server of this machine, asked by 1, 8 and 32 callers at once, against the same here.

Every caller asks for one row at a time, as judges that are asked answer by answer do; the server joins what comes
together. `here` are the same calls in this process as a run makes them (`Guarded`), one after another. Both sides have
one thread of PyTorch each; `load` is how busy the machine was with other work when it began.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmalign import load_reward
from mmalign.core.types import Audio, Rollout
from mmalign.rewards import Guarded

ROOT = Path(__file__).parents[2]
CALLERS, CALLS = (1, 8, 32), 192
CLIP = "assets/scenes_clip"


def measure() -> dict[str, Any]:
    """By reward: rows a second here and there by callers, and there as a share of here."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.rand(CALLS, 3, 64, 64, generator=draw)
    sounds = Audio(torch.rand(CALLS, 1, 16000, generator=draw) * 1.8 - 0.9, 16000)
    cases = {
        "clip": ("clip", {"checkpoint": CLIP}, Rollout.of(["a red circle"] * CALLS, pictures)),
        "sharp": ("sharpness", {}, Rollout.of(["a red circle"] * CALLS, pictures)),
        "loud": ("loudness", {}, Rollout.of(["a tune"] * CALLS, sounds)),
        "length": ("length", {}, Rollout.of(["say it"] * CALLS, [f"{row} words or so" for row in range(CALLS)])),
    }
    words = [f"{name}={kind}" for name, (kind, _, _) in cases.items()]
    with _server([*words, "--set", f"clip.checkpoint={CLIP}"]) as url:
        busy = {"load": round(os.getloadavg()[0], 1), "processors": os.cpu_count()}
        return busy | {
            name: _case(
                Guarded(name, load_reward(kind, **options)),
                load_reward("remote", url=url, served=name, concurrency=max(CALLERS)),
                rollout,
            )
            for name, (kind, options, rollout) in cases.items()
        }


def _case(here: Callable[[Rollout], Any], there: Callable[[Rollout], Any], rollout: Rollout) -> dict[str, Any]:
    rows = [rollout[row : row + 1] for row in range(CALLS)]
    for reward in (here, there):
        reward(rows[0])
    local = _rate(here, rows, 1)
    whole = time.perf_counter()
    there(rollout)
    whole = CALLS / (time.perf_counter() - whole)
    far = {callers: _rate(there, rows, callers) for callers in CALLERS}
    return {
        "here_rows_per_second": round(local, 1),
        "one_request_rows_per_second": round(whole, 1),
        "callers": {
            str(callers): {"rows_per_second": round(rate, 1), "of_here": round(rate / local, 3)}
            for callers, rate in far.items()
        },
    }


def _rate(reward: Callable[[Rollout], Any], rows: Sequence[Rollout], callers: int) -> float:
    start = time.perf_counter()
    with torch.no_grad(), ThreadPoolExecutor(callers) as calls:
        scores = list(calls.map(reward, rows))
    assert all(bool(score.valid.all()) for score in scores)
    return len(rows) / (time.perf_counter() - start)


@contextmanager
def _server(words: Sequence[str]) -> Iterator[str]:
    """The address of `mmalign serve` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmalign", "serve", *words, "--port", "0"],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout
    try:
        found = next(found for line in process.stdout if (found := re.match(r"(http://\S+) scores", line)))
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)
