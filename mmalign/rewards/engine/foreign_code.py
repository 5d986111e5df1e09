"""Around code that is not the run's own: it shifts no random number and no folder, a line says where it is slow, and
what it is shown of a rollout is not its to change, for training goes on with that.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmalign.core.errors import ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout

SLOW = 60.0  # seconds of one call after which a line names the reward; the next comes after as long again, and so on
_SAMPLED = 2**16  # entries of a latent that are looked at: a trajectory is as large as all pictures of its steps
_PLAIN = (str, int, float, type(None))


@contextmanager
def foreign_call(name: str, rows: int) -> Iterator[None]:
    """Around a call of reward `name`: random state and working directory are kept, long silence is broken."""
    with (
        preserve_rng_state(),
        preserve_working_directory(),
        report_if_slow(f"reward '{name}' has been scoring {rows} rows", SLOW),
    ):
        yield


@contextmanager
def preserve_working_directory() -> Iterator[None]:
    """Go back to the working directory on leaving: relative paths of the run must mean the same afterwards."""
    here = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def report_if_slow(what: str, after: float) -> Iterator[None]:
    """Print "note: `what` for … s" after `after` seconds inside, and each time when as long again has passed."""
    done = threading.Event()

    def watch() -> None:
        waited, pause = 0.0, after
        while not done.wait(pause):
            waited, pause = waited + pause, waited + pause
            print(f"note: {what} for {waited:.0f} s.", file=sys.stderr, flush=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore torch's (CPU and initialised CUDA), NumPy's and Python's global generators on leaving."""
    state, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


class Shield:
    """Gives copies of what is small (groups, masks, facts about prompts), and watches what is large.

    Outputs are looked at before and after: the sum of their bits, and PyTorch's count of writes. So are trajectories,
    of which a part is summed, and what prompts are about, by its count of writes alone.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._output, self._latents = list(_tensors(rollout.output)), list(_tensors(rollout.trajectory))
        self._media = [value for prompt in rollout.prompts for value in _tensors(prompt.media)]
        self._before = self._seen()
        self.shown = replace(
            rollout,
            prompts=_copies(rollout.prompts),
            output=list(rollout.output) if isinstance(rollout.output, list) else rollout.output,
            group=rollout.group.clone(),
            trajectory=dict(rollout.trajectory),
            **{
                name: None if (tensor := getattr(rollout, name)) is None else tensor.clone()
                for name in ("step_logp", "mask", "truncated")
            },
        )

    def _seen(self) -> tuple[list[int], list[Tensor]]:
        every = [*self._output, *self._latents]
        sums = [*(_digest(tensor) for tensor in self._output), *(_digest(part, _SAMPLED) for part in self._latents)]
        return [_writes(tensor) for tensor in (*every, *self._media)], sums

    def check(self, name: str) -> None:
        """Raise ScoreError if the reward called `name` wrote into outputs, latents or what prompts are about."""
        (writes, sums), (before, sums_before) = self._seen(), self._before
        if writes != before or not all(map(torch.equal, sums, sums_before)):
            raise ScoreError(
                f"reward '{name}' wrote into what it was given to judge, and training goes on with it; let it work on "
                "a copy (output.clone())."
            )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Audio):
        yield value.samples
    elif isinstance(value, dict | tuple):  # media that are decoded at each look are nobody's to spoil
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _writes(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _digest(tensor: Tensor, most: int = 0) -> Tensor:
    """The sum of the bits, of at most about `most` entries (0: of all) spread evenly; 0-dimensional, where they lie.

    As words of 8 bytes where they can be read so: smaller ones are widened one by one, which takes ten times as long.
    """
    flat = tensor.detach()
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    strides = flat.stride()
    flat = flat.permute(sorted(range(flat.dim()), key=lambda axis: -strides[axis])).reshape(-1)  # as it lies
    if most and len(flat) > most:
        flat = flat[:: len(flat) // most].contiguous()
    size = flat.element_size()
    whole = len(flat) * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    return flat.view(torch.int64 if whole else getattr(torch, f"int{8 * size}")).sum(dtype=torch.int64)


def _copies(prompts: list[Prompt]) -> list[Prompt]:
    """Rows of one prompt stay of one."""
    made: dict[int, Prompt] = {}
    for prompt in prompts:
        if id(prompt) not in made:
            made[id(prompt)] = Prompt(prompt.text, prompt.media, _copy(prompt.meta), prompt.place)
    return [made[id(prompt)] for prompt in prompts]


def _copy(value: Any) -> Any:
    """Containers are made anew, what they hold stays."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
