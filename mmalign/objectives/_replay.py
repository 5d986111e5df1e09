"""What a policy says of recorded steps or outputs, without gradient, a few rows at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.protocols import Probe
from mmalign.core.types import Rollout, StepDist, join


@torch.no_grad()
def recorded(policy: Any, rollout: Rollout, rows: int, *, moments: bool) -> StepDist:
    """`policy.step_dist` of the whole rollout, `rows` rows at a time; the log-prob alone unless `moments`."""
    pieces = [rollout[start : start + rows] for start in range(0, len(rollout), rows)]
    if not moments:
        return StepDist(torch.cat([policy.step_log_prob(piece, slice(None)) for piece in pieces]))
    return replace(join([policy.step_dist(piece, slice(None)) for piece in pieces]), entropy=None)


@torch.no_grad()
def terms(policy: Any, rollout: Rollout, probe: Probe, rows: int) -> Float[Tensor, "B T"]:
    """`policy.log_prob` of the whole rollout under `probe`, `rows` rows at a time."""
    starts = range(0, len(rollout), rows)
    return torch.cat(
        [policy.log_prob(rollout[i : i + rows], {k: v[i : i + rows] for k, v in probe.items()}) for i in starts]
    )


__all__ = ["recorded", "terms"]
