"""One seed, many named random streams, all restorable.

A stream is named by purpose ("rollout", "probe", "shuffle", "preview"), so drawing more of one never shifts another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from mmalign.core.tensor import Generator, Tensor

Noise = Generator | Sequence[Generator]  # one source for all rows, or one per row


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream `names` of `seed`; equal on every machine and Python."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for the stream `names` of `seed`."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))


class Streams:
    """The named generators of one process, made on first use; `state_dict` makes them resumable."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank
        self._made: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._made:
            self._made[name] = stream(self.seed, name, self.rank)
        return self._made[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Generator states by name, each a (bytes,) uint8 tensor."""
        return {name: rng.get_state() for name, rng in self._made.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore every stream in `state`; streams not in it start afresh."""
        self._made.clear()
        for name, value in state.items():
            self[name].set_state(value.cpu())


def home(rng: Noise) -> torch.device:
    """Return the device on which `rng` draws; of several generators, that of the first."""
    return rng.device if isinstance(rng, torch.Generator) else next((one.device for one in rng), torch.device("cpu"))


def randn(
    shape: Sequence[int], rng: Noise, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """Standard normal noise (float32) drawn on the generator's own device, then moved: the same on every device.

    With one generator per row, a row's noise does not depend on the rows beside it (as in diffusers' pipelines).
    """
    if not isinstance(rng, torch.Generator):
        if len(rng) != shape[0]:
            raise ValueError(f"{len(rng)} generators for {shape[0]} rows; give one, or one per row.")
        drawn = [randn(shape[1:], one, device, dtype) for one in rng]
        return torch.stack(drawn) if drawn else torch.empty(tuple(shape), device=device, dtype=dtype)
    return torch.randn(tuple(shape), generator=rng, device=rng.device, dtype=torch.float32).to(device, dtype)


def rand(shape: Sequence[int], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Uniform noise in [0, 1), drawn on the generator's own device, then moved."""
    return torch.rand(tuple(shape), generator=rng, device=rng.device).to(device)
