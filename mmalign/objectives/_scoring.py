"""One answer per prompt row, scored: what every online objective starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool

from mmalign.core.errors import ScoreError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores


def sample_groups(policy: Any, prompts: Sequence[Prompt], size: int, rng: torch.Generator) -> Rollout:
    """`size` outputs for each prompt, group-major; `group` numbers the prompts of this batch, equal texts or not."""
    rollout = policy.sample([prompt for prompt in prompts for _ in range(size)], rng)
    return replace(rollout, group=torch.arange(len(rollout), device=rollout.group.device) // size)


def scored(reward: Any, rollout: Rollout) -> Scores:
    """The reward's scores on the rollout's device. Raises ScoreError on a wrong row count or a non-finite valid value.

    A value that cannot be used must come with a status that says so: a silent NaN or infinity would enter the group's
    statistics.
    """
    scores = reward(rollout)
    name = f"reward {type(reward).__name__}"
    if len(scores.value) != len(rollout):
        raise ScoreError(f"{name} returned {len(scores.value)} scores for {len(rollout)} rows.")
    scores = scores.to(rollout.group.device)
    finite = scores.value.isfinite()
    if scores.per_step is not None:
        finite = finite & scores.per_step.isfinite().all(1)
    if (broken := scores.valid & ~finite).any():
        row = int(broken.nonzero()[0, 0])
        raise ScoreError(
            f"{name} scored {int(broken.sum())} of {len(rollout)} rows as usable with a value that is not finite "
            f"(row {row}: {scores.value[row].item()}); return status error, or a finite floor in its range."
        )
    return scores


def means(mask: Bool[Tensor, "*any"], **values: Tensor) -> dict[str, Tensor]:
    """Detached means over the masked entries by name (`__` becomes `/`); nothing where no entry counts.

    Each knows of how many entries it is (`Counted`).
    """
    from mmalign.core.counted import Counted

    if not mask.any():
        return {}
    return {name.replace("__", "/"): Counted.of(value, mask) for name, value in values.items()}


__all__ = ["means", "sample_groups", "scored"]
