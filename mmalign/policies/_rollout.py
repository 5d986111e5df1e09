"""From prompts and latents (B, *latent) to a `Rollout`: groups, micro-batches, decoding and encoding of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import DataError, Diverged
from mmalign.core.protocols import LatentAdapter
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout, groups

Saturation = Literal["straight_through", "clamp", "off"]


def first_rows(group: Int[Tensor, " B"]) -> list[int]:
    """The first row of each group, by group number."""
    first: dict[int, int] = {}
    for row, number in enumerate(group.tolist()):
        first.setdefault(number, row)
    return [first[number] for number in sorted(first)]


def micro_batches(count: int, rows: int) -> list[slice]:
    """Slices of at most `rows` of `count` rows; all at once where `rows` is 0."""
    size = rows or max(count, 1)
    return [slice(i, i + size) for i in range(0, count, size)]


def check_finite(x0: Float[Tensor, " B *latent"]) -> None:
    """Raise Diverged where no row's latents are finite."""
    if len(x0) and not bool(x0.detach().flatten(1).isfinite().all(1).any()):
        raise Diverged(f"the latents of all {len(x0)} outputs are not finite: the model diverged")


def decode_in_range(adapter: LatentAdapter, x0: Float[Tensor, " B *latent"], rows: int) -> Any:
    """Decode latents, `rows` rows at a time, to outputs in their range: images in [0, 1], sound in [-1, 1].

    Rows of latents that are not finite are decoded too, and the reward's to refuse; Diverged where all rows are such.
    """
    check_finite(x0)
    return join([in_range(adapter.decode(x0[part])) for part in micro_batches(len(x0), rows)])


def encode_outputs(adapter: LatentAdapter, prompts: Sequence[Prompt], outputs: Any, rows: int) -> Rollout:
    """A rollout of given outputs whose `trajectory["x0"]` (B, *latent) holds their latents, float32, no gradient."""
    if len(outputs) != len(prompts):
        raise DataError(f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row.")
    with torch.no_grad():
        parts = [adapter.latents(outputs[part]) for part in micro_batches(len(prompts), rows)]
    x0 = torch.cat(parts).to(adapter.device, torch.float32)
    return Rollout(prompts=list(prompts), output=outputs, group=groups(prompts).to(x0.device), trajectory={"x0": x0})


def in_range(output: Any, saturation: Saturation = "clamp") -> Any:
    """Images in [0, 1], sound in [-1, 1]: clamped, clamped with the gradient of the identity, or as they are."""
    if isinstance(output, Audio):
        return replace(output, samples=_saturate(output.samples, -1.0, saturation))
    return _saturate(output, 0.0, saturation)


def _saturate(values: Tensor, low: float, saturation: Saturation) -> Tensor:
    if saturation == "off":
        return values
    clamped = values.clamp(low, 1.0)
    return values + (clamped - values).detach() if saturation == "straight_through" else clamped
