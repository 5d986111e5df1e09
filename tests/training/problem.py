"""A whole training problem on toys: a flow on R^2, a reward that pulls its outputs to a point, and a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.core.types import Scores
from mmalign.data.batches import Batches
from mmalign.objectives.grpo import GRPO
from mmalign.policies.flow import Flow
from mmalign.training.session import Nowhere, Session
from mmalign.training.update import Update
from tests.toys import NearPoint, ToyLatent, prompts


@dataclass
class Lines(Nowhere):
    """Collects numbers."""

    lines: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.lines.append((step, dict(numbers)))


class Problem:
    """Policy, objective and session of one run; `lines` collects what the session records."""

    def __init__(self, seed: int = 0, objective: Any = None, rank: int = 0, world: int = 1, **options: Any) -> None:
        self.adapter = ToyLatent()
        self.policy = Flow(adapter=self.adapter, num_inference_steps=4, noise_level=0.7)
        self.objective = objective or GRPO(reward=NearPoint(), group_size=4, beta=0.01)
        trainer = Trainer(**{"steps": 6, "prompts_per_step": 4, "lr": 1e-2, "warmup": 2, "seed": seed, **options})
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.session = Session(
            trainer=trainer,
            update_rule=Update(list(self.adapter.module.parameters()), trainer),
            batches=Batches(prompts(7), trainer.prompts_per_step, seed, rank, world),
            streams=Streams(seed, rank),
            sink=Lines(self.lines),
        )

    def stateful(self) -> dict[str, Any]:
        """What a checkpoint holds besides weights, as a run's parts say it."""
        named = {"policy": self.policy, "reward": self.objective.reward}
        return {name: part for name, part in named.items() if hasattr(part, "load_state_dict")}

    def weights(self) -> dict[str, Any]:
        """A copy of the trained weights."""
        return {name: value.clone() for name, value in self.adapter.module.state_dict().items()}


def save_into(folder: Path, problem: Problem) -> Any:
    """A hook that writes a checkpoint after every step."""
    from mmalign.training import checkpoint

    def hook(session: Session, policy: Any, experience: Any) -> None:
        checkpoint.save_checkpoint(folder, session, problem.adapter, problem.stateful())

    return hook


class SomeAlike:
    """The first half of the groups of four score alike, so that nothing can be learned from them."""

    modalities = frozenset({"image"})
    range = (-1.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Any) -> Scores:
        value = NearPoint()(rollout).value
        value[: len(value) // 2] = 0.5
        return Scores.of(value)
