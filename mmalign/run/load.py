"""A finished run opened for use: what it learned, by a seed, beside what it began as, and scored as it was measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.protocols import judges_only
from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout, Scores, as_prompts
from mmalign.run.build import Parts, build
from mmalign.run.directory import RunDirectory
from mmalign.run.hooks import measures
from mmalign.training import checkpoint


@dataclass(frozen=True)
class Trained:
    """The parts of a run, its weights those of the checkpoint of `step`, and its rewards and judges by name."""

    parts: Parts
    step: int
    rewards: Mapping[str, Any]

    def generate(self, prompts: Sequence[Prompt | str], seed: int = 0) -> Rollout:
        """One output per prompt by the sampler of evaluation, without gradient.

        Args:
            prompts: B texts, or prompts with media.
            seed: row i draws from its own stream of (seed, i), so outputs of equal prompts differ, and the start and
                the result (see `start`) share their noise.

        Raises:
            DataError: no prompts.
        """
        from mmalign.evaluation.evaluate import evaluating

        asked = as_prompts(prompts)
        if not asked:
            raise DataError("there are no prompts; give at least one.")
        noise = [stream(seed, "generate", row) for row in range(len(asked))]
        with torch.no_grad(), evaluating(self.parts.policy.module):
            return self.parts.policy.generate(asked, noise)  # type: ignore[no-any-return]

    def start(self) -> AbstractContextManager[None]:
        """Inside it, `generate` is what the run began with, in this thread; others wait until it is left."""
        return self.parts.policy.reference()  # type: ignore[no-any-return]

    def score(self, rollout: Rollout) -> dict[str, Scores]:
        """What every reward and judge of the run says of B outputs; rewards of sets give each row its credit."""
        return {name: reward(rollout) for name, reward in self.rewards.items()}


def load_run(directory: Path | str, allow: Collection[str] = ()) -> Trained:
    """Open the newest checkpoint of a run directory.

        run = mmalign.load_run("runs/quickstart")
        after = run.generate(["a red circle", "two blue stars"], seed=7)
        with run.start():
            before = run.generate(["a red circle", "two blue stars"], seed=7)
        print({name: scores.value.tolist() for name, scores in run.score(after).items()})

    Args:
        directory: what `mmalign train` wrote.
        allow: modules that its run file may name.

    Raises:
        ConfigError: no run there, or its file has faults.
        CheckpointError: no whole checkpoint, or one that does not fit.
        CapabilityError: the run of a reward model, which makes nothing.
    """
    from mmalign.rewards import Guarded

    place = RunDirectory(Path(directory))
    if not (place.path / "run.yaml").is_file():
        raise ConfigError(f"{place.path}: no run.yaml in it; name a directory that `mmalign train` wrote.")
    newest = checkpoint.latest(place.checkpoints)
    parts = build(load(place.path / "run.yaml"), allow)
    if judges_only(parts.policy):
        raise CapabilityError(
            f"{place.path}: a reward model makes nothing; score with it by "
            f"mmalign.load_reward('reward_model', model='{place.path}')."
        )
    parts.load()
    parts.adapter.restore(newest / "adapter")
    rewards = {
        name: reward if isinstance(reward, Guarded) else Guarded(name, reward, monitor=True)  # of sets, for the credit
        for name, reward in measures(parts).items()
    }
    return Trained(parts, checkpoint.step_of(newest), rewards)
