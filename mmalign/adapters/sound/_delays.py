"""The delay pattern of codebooks (MusicGen, Copet et al., 2306.05284, sec. 2.2): codebook k is said d(k) steps late.

Frame f of codebook k stands at step f + d(k), d(k) = k // channels (the codebooks of left and right alternate). Steps
before a codebook's first and after its last frame hold a fill that nobody chose. T steps are T + 1 - D frames, D the
number of different delays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int

from mmalign.core.errors import DataError
from mmalign.core.tensor import Tensor


@dataclass(frozen=True)
class Delays:
    """`codebooks` K of all `channels` together; `fill` stands where nothing is said."""

    codebooks: int
    channels: int
    fill: int

    @property
    def depth(self) -> int:
        """The number of different delays, D."""
        return self.codebooks // self.channels

    def frames(self, steps: int) -> int:
        """Count the whole frames that `steps` steps say; DataError where there is none."""
        if steps < self.depth:
            raise DataError(
                f"{steps} steps say no whole frame of {self.codebooks} codebooks; set the policy's max_new_tokens to "
                f"the number of frames plus {self.depth - 1}."
            )
        return steps + 1 - self.depth

    def free(self, steps: int) -> Bool[Tensor, "T K"]:
        """Return True where an entry (step, codebook) is part of a frame, False where it is the fill."""
        late = self._late()
        at = torch.arange(steps)[:, None]
        return (at >= late) & (at < late + self.frames(steps))

    def delayed(self, codes: Int[Tensor, "B K F"]) -> Int[Tensor, "B T K"]:
        """Return codes (B, K, F) as the steps (B, T, K) of the delay pattern."""
        frames = codes.shape[2]
        tokens = codes.new_full((len(codes), frames - 1 + self.depth, self.codebooks), self.fill)
        for k, late in enumerate(self._late().tolist()):
            tokens[:, late : late + frames, k] = codes[:, k]
        return tokens

    def aligned(self, tokens: Int[Tensor, "B T K"]) -> Int[Tensor, "B K F"]:
        """Return steps (B, T, K) as codes (B, K, F): undo `delayed`."""
        frames = self.frames(tokens.shape[1])
        rows = [tokens[:, late : late + frames, k] for k, late in enumerate(self._late().tolist())]
        return torch.stack(rows, 1)

    def _late(self) -> Tensor:
        return torch.arange(self.codebooks) // self.channels
