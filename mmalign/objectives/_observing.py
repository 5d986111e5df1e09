"""Offline comparisons as pairs of rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.experience import Pairs
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Preference


def observed(policy: Any, batch: Sequence[Any], who: str, instead: str) -> Pairs:
    """The policy's view of the chosen and rejected outputs.

    Args:
        policy: whose view.
        batch: preferences.
        who: asks for them, in the error.
        instead: what to set where the batch is not of preferences.

    Raises:
        DataError: rows that are no preferences, or outputs that do not batch.
    """
    if strange := [type(row).__name__ for row in batch if not isinstance(row, Preference)]:
        raise DataError(f"{who} reads preferences, got {strange[0]}; set {instead}.")
    prompts = [preference.prompt for preference in batch]
    chosen = policy.observe(prompts, batched([preference.chosen for preference in batch], "chosen"))
    rejected = policy.observe(prompts, batched([preference.rejected for preference in batch], "rejected"))
    device = chosen.group.device
    mask = torch.ones(len(prompts), dtype=torch.bool, device=device)
    return Pairs(chosen=chosen, rejected=rejected, mask=mask, label=labels(batch, device))


def labels(batch: Sequence[Preference], device: torch.device | str) -> Float[Tensor, " B"] | None:
    """P(chosen is better) from `meta["label"]` where any row has one (1 where missing); None if no row has."""
    found = [preference.prompt.meta.get("label") for preference in batch]
    if all(label in (None, "") for label in found):
        return None
    known = [1.0 if label in (None, "") else number(label) for label in found]
    for row, label in enumerate(known):
        if label is None or not 0 <= label <= 1:
            raise DataError(
                f"row {row} of the batch: meta.label is {found[row]!r}; expected P(chosen is better) in [0, 1]."
            )
    return torch.tensor(known, device=device)


def number(value: Any) -> float | None:
    """What a column holds as a finite number; text that reads as one, as CSV files have it, is one; else None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def batched(outputs: Sequence[Any], side: str) -> Any:
    """Single outputs as one batch: tensors are stacked, one-row `Audio` padded and masked, strings listed."""
    kinds = {type(output).__name__ for output in outputs}
    if len(kinds) > 1:
        raise DataError(f"'{side}' mixes {' and '.join(sorted(kinds))} in one batch; keep one kind of output.")
    if isinstance(outputs[0], Audio):
        return _sounds(outputs, side)
    if not isinstance(outputs[0], Tensor):
        return list(outputs)
    shapes = {tuple(output.shape) for output in outputs}
    if len(shapes) > 1:
        raise DataError(f"'{side}' holds images of {len(shapes)} sizes ({sorted(shapes)}); resize them to one size.")
    return torch.stack(list(outputs))


def _sounds(outputs: Sequence[Audio], side: str) -> Audio:
    rates = {output.rate for output in outputs}
    if len(rates) > 1:
        raise DataError(f"'{side}' holds sound at {sorted(rates)} Hz; resample it to one rate.")
    channels = {output.samples.shape[1] for output in outputs}
    if len(channels) > 1:
        raise DataError(f"'{side}' holds sound of {sorted(channels)} channels; mix it to one number of them.")
    longest = max(output.samples.shape[-1] for output in outputs)
    padded = []
    for output in outputs:
        missing = longest - output.samples.shape[-1]
        rows, _, length = output.samples.shape
        mask = torch.ones(rows, length, dtype=torch.bool) if output.mask is None else output.mask
        padded.append(
            replace(
                output,
                samples=torch.nn.functional.pad(output.samples, (0, missing)),
                mask=torch.nn.functional.pad(mask, (0, missing)),
            )
        )
    sound: Audio = join(padded)
    return sound


def rows_read(online: str) -> frozenset[str]:
    """What batches hold for an objective that compares: preferences where it is offline, else prompts."""
    return frozenset({"preferences"} if online == "off" else {"prompts"})


__all__ = ["batched", "labels", "number", "observed", "rows_read"]
