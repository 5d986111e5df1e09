"""The training loop reduced to its arithmetic, to compare gradients and to see objectives learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.core.experience import Experience
from mmalign.core.types import Preference, Prompt, Rollout, Scores, Status
from tests.objectives.gaussian_policy import GaussianPolicy


def alone(total: Tensor) -> Tensor:
    """The mean over one process."""
    return total


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(policy: Any, objective: Any, experience: Experience, rows: int = 1 << 20, spans: int = 1 << 20) -> Tensor:
    """The gradient of one update, accumulated over chunks."""
    policy.module.zero_grad(set_to_none=True)
    accumulate(policy, objective, experience, rows, spans)
    return torch.cat([p.grad.flatten() for p in policy.module.parameters() if p.requires_grad])


def accumulate(
    policy: Any, objective: Any, experience: Any, rows: int = 1 << 20, spans: int = 1 << 20
) -> dict[str, float]:
    weighted = replace(experience, weight=objective.weigh(experience.mask, alone))
    metrics: dict[str, Any] = {}
    for chunk, _ in weighted.chunks(rows, spans):
        loss, metrics = objective.loss(policy, chunk, stream())
        loss.backward()
    metrics |= objective.counts(weighted) if hasattr(objective, "counts") else {}
    return {name: float(value) for name, value in metrics.items()}


def collect(policy: Any, objective: Any, batch: Any, seed: int = 0) -> Any:
    with torch.no_grad():
        return objective.collect(policy, batch, stream(seed))


def learn(policy: Any, objective: Any, batch: Any, steps: int, lr: float, updates: int = 1) -> None:
    """Plain Adam, fresh samples every step."""
    adam = torch.optim.Adam(policy.module.parameters(), lr=lr)
    rng = stream(1)
    for _ in range(steps):
        with torch.no_grad():
            experience = objective.collect(policy, batch, rng)
        for minibatch in experience.minibatches(updates, rng):
            adam.zero_grad()
            accumulate(policy, objective, minibatch)
            adam.step()


def outputs(policy: Any, batch: Any, copies: int = 64) -> Tensor:
    """Fresh outputs, (rows, 2)."""
    with torch.no_grad():
        return policy.sample([p for p in batch for _ in range(copies)], stream(9)).output.flatten(1)


@dataclass
class Fixed:
    """A reward that reads its answers from a list, with statuses."""

    values: list[float]
    status: list[Status] | None = None
    per_step: Tensor | None = None
    modalities = frozenset({"image"})
    range = (-1.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        value = torch.tensor(self.values, dtype=torch.float64).float()
        status = torch.tensor(self.status or [Status.OK] * len(value), dtype=torch.int8)
        return Scores(value=value, status=status, per_step=self.per_step)


def moved(policy: GaussianPolicy, by: float = 0.05) -> GaussianPolicy:
    """The policy after an update, so that ratios differ from 1."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in policy.module.parameters():
            p.add_(by * torch.randn(p.shape, generator=rng).to(p))
    return policy


def preferences(count: int = 8, label: float | None = None) -> list[Preference]:
    """Outputs near (1, -1) beat outputs near the origin."""
    rng = torch.Generator().manual_seed(2)
    noise = 0.3 * torch.randn(count, 2, 1, 1, 2, generator=rng)
    goal = torch.tensor([1.0, -1.0])
    meta = {} if label is None else {"label": label}
    asked = [Prompt("x" * (1 + i % 3), meta=meta) for i in range(count)]
    return [Preference(p, noise[i, 0] + goal, noise[i, 1]) for i, p in enumerate(asked)]
