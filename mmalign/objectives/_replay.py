"""What a policy says of recorded steps or outputs, without gradient, a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float

from mmalign.core.gradient import without_gradient
from mmalign.core.protocols import Probe
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout, StepDist


@without_gradient
def recorded(policy: Any, rollout: Rollout, rows: int, *, moments: bool) -> StepDist:
    """`policy.step_dist` of the whole rollout, `rows` rows at a time; the log-prob alone unless `moments`."""
    pieces = [rollout[start : start + rows] for start in range(0, len(rollout), rows)]
    if not moments:
        return StepDist(torch.cat([policy.step_log_prob(piece, slice(None)) for piece in pieces]))
    return replace(join([policy.step_dist(piece, slice(None)) for piece in pieces]), entropy=None)


@without_gradient
def recorded_where(
    policy: Any,
    rollout: Rollout,
    asked: Bool[Tensor, " B"],
    otherwise: Float[Tensor, "B T"],
    rows: int,
    *,
    moments: bool,
) -> StepDist:
    """`recorded` of the rows that are `asked`; the others, which nothing will read, keep the log-prob `otherwise`.

    Their moments are 0 and 1: finite, so that a term of weight 0 stays 0.
    """
    if bool(asked.all()):
        return recorded(policy, rollout, rows, moments=moments)
    wanted = asked.nonzero()[:, 0] if bool(asked.any()) else asked.new_zeros(1, dtype=torch.long)
    said = recorded(policy, rollout[wanted], rows, moments=moments)

    def spread(part: Tensor | None, rest: float) -> Tensor | None:
        if part is None:
            return None
        return part.new_full((len(asked), *part.shape[1:]), rest).index_copy(0, wanted, part)

    log_prob = otherwise.to(said.log_prob).index_copy(0, wanted, said.log_prob)
    return StepDist(log_prob, spread(said.mean, 0.0), spread(said.std, 1.0), None, spread(said.dt, 1.0))


@without_gradient
def terms(policy: Any, rollout: Rollout, probe: Probe, rows: int) -> Float[Tensor, "B T"]:
    """`policy.log_prob` of the whole rollout under `probe`, `rows` rows at a time."""
    return side_terms(policy, [rollout], probe, rows)[0]


@without_gradient
def side_terms(policy: Any, sides: Sequence[Rollout], probe: Probe, rows: int) -> list[Float[Tensor, "B _"]]:
    """`side_log_probs` of whole rollouts, `rows` rows at a time (one of each side at least)."""
    size = max(1, rows // len(sides)) if _judges_together(policy, sides) else rows
    parts = []
    for i in range(0, len(sides[0]), size):
        part = {k: v[i : i + size] for k, v in probe.items()}
        parts.append(side_log_probs(policy, [side[i : i + size] for side in sides], part))
    return [torch.cat(side) for side in zip(*parts, strict=True)]


def side_log_probs(policy: Any, sides: Sequence[Rollout], probe: Probe) -> list[Float[Tensor, "B _"]]:
    """`policy.log_prob` of several answers to the same prompts, with gradient; judged together where it can do that."""
    if _judges_together(policy, sides):
        return policy.log_probs(sides, probe)  # type: ignore[no-any-return]
    return [policy.log_prob(side, probe) for side in sides]


def _judges_together(policy: Any, sides: Sequence[Rollout]) -> bool:
    return len(sides) > 1 and hasattr(policy, "log_probs")


__all__ = ["recorded", "recorded_where", "side_log_probs", "side_terms", "terms"]
