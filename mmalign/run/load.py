"""A finished run opened for use: what it learned, by a seed, beside what it began as, and scored as it was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from mmalign.core.capabilities import judges_only
from mmalign.core.config import Draft, RunFile, load
from mmalign.core.errors import CapabilityError, ConfigError, DataError, MmalignError, together
from mmalign.core.protocols import Policy
from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout, Scores, Status, as_prompts
from mmalign.rewards.reference_sets.kept import KeptReferences
from mmalign.rewards.reference_sets.source import stored_in
from mmalign.run.build import Assembly, Parts, build, build_judge, build_slot
from mmalign.run.directory import RunDirectory
from mmalign.run.hooks import measures
from mmalign.run.resuming import checkpoint_of, resume_point
from mmalign.training import checkpoint


@dataclass(frozen=True)
class Trained:
    """The parts of a run, its weights those of the checkpoint of `step`, and its rewards and judges by name.

    `references` are what rewards of sets compare with, as it was when the run began.
    """

    parts: Parts
    step: int
    rewards: Mapping[str, Any]
    references: KeptReferences | None = None

    def __repr__(self) -> str:
        return f"Trained(step {self.step} of {self.parts.policy.modality}; scored by {', '.join(self.rewards)})"

    def generate(self, prompts: Sequence[Prompt | str], seed: int = 0) -> Rollout:
        """One output per prompt by the sampler of evaluation, without gradient.

        Args:
            prompts: B texts, or prompts with media.
            seed: row i draws from its own stream of (seed, i), so outputs of equal prompts differ, and the start and
                the result (see `start`) share their noise.

        Raises:
            DataError: no prompts.
        """
        from mmalign.evaluation.evaluate import eval_mode

        batch = as_prompts(prompts)
        if not batch:
            raise DataError("there are no prompts; give at least one.")
        noise = [stream(seed, "generate", row) for row in range(len(batch))]
        with torch.no_grad(), eval_mode(self._policy.module):
            return self._policy.generate(batch, noise)

    def start(self) -> AbstractContextManager[None]:
        """Inside it, `generate` is what the run began with, in this thread; others wait until it is left."""
        return self._policy.reference()

    @property
    def _policy(self) -> Policy:
        return cast(Policy, self.parts.policy)  # `load_run` refuses the others

    def score(self, rollout: Rollout) -> dict[str, Scores]:
        """Return what every reward and judge of the run says of B outputs; rewards of sets give each row its credit."""
        with stored_in(self.references):
            return {name: reward(rollout) for name, reward in self.rewards.items()}


class Lost:
    """In place of a reward of the run that cannot be built here: every row says why."""

    modalities = frozenset({"text", "image", "audio"})

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, rollout: Rollout) -> Scores:
        """Give B rows no score, as an error of ours."""
        rows = len(rollout)
        status = torch.full((rows,), int(Status.ERROR), dtype=torch.int8)
        return Scores(torch.full((rows,), torch.nan), status, info=[self.why] * rows)


def open_parts(run: RunFile, allow: Collection[str]) -> tuple[Parts, dict[str, Lost]]:
    """Return the parts of a run, and what stands for those of its rewards and judges that cannot be built any more.

    What only training asks for (an objective without its reward, a combination without its threshold) is no fault here.
    """
    try:
        return build(run, allow), {}
    except MmalignError:
        lost = {
            **_lost(run.rewards, "rewards", build_slot, allow),
            **_lost(run.evaluation.judges, "", build_judge, allow),
        }
        if not lost:
            raise
    remaining = {name: spec for name, spec in run.rewards.items() if name not in lost}
    judges = {name: spec for name, spec in run.evaluation.judges.items() if name not in lost}
    rest = replace(run, rewards=remaining, evaluation=replace(run.evaluation, judges=judges))
    inspection = Assembly(Draft(rest), allow).made()
    if not {"adapter", "policy", "source"} <= inspection.known.keys():
        raise together(inspection.faults)
    made: dict[str, Any] = {
        name: inspection.known.get(name) for name in ("adapter", "policy", "reward", "objective", "source")
    }
    own = {place.removeprefix("evaluation.judges."): judge for place, judge in inspection.known["judges"].items()}
    return Parts(file=run, judges=own, **made), lost


def _lost(specs: Mapping[str, Any], at: str, make: Callable[..., Any], allow: Collection[str]) -> dict[str, Lost]:
    lost = {}
    for name, spec in specs.items():
        try:
            make(f"{at}.{name}" if at else name, spec, allow)
        except MmalignError as error:
            lost[name] = Lost(str(error))
    return lost


def load_run(directory: Path | str, allow: Collection[str] = (), changes: Sequence[str] = ()) -> Trained:
    """Open the newest checkpoint of a run directory.

        run = mmalign.load_run("runs/quickstart")
        after = run.generate(["a red circle", "two blue stars"], seed=7)
        with run.start():
            before = run.generate(["a red circle", "two blue stars"], seed=7)
        print({name: scores.value.tolist() for name, scores in run.score(after).items()})

    Args:
        directory: what `mmalign train` wrote.
        allow: modules that its run file may name.
        changes: `key.path=value` changes of its run file, as where the base model lies now.

    A reward that cannot be built here (its reference is gone, its module is not allowed) leaves the others standing:
    its scores are errors that say why.

    Raises:
        ConfigError: no run there, or its file has faults.
        CheckpointError: no whole checkpoint, or one that does not fit.
        CapabilityError: the run of a reward model, which makes nothing.
    """
    from mmalign.rewards import Guarded
    from mmalign.rewards.engine.call import guard

    path, step = resume_point(directory)
    place = RunDirectory(path)
    if not (place.path / "run.yaml").is_file():
        raise ConfigError(f"{place.path}: no run.yaml in it; name a directory that `mmalign train` wrote.")
    chosen = checkpoint_of(place, step, "adapter")
    parts, lost = open_parts(load(place.path / "run.yaml", changes), allow)
    if judges_only(parts.policy):
        raise CapabilityError(
            f"{place.path}: a reward model makes nothing; score with it by "
            f"mmalign.load_reward('reward_model', model='{place.path}')."
        )
    parts.load()
    parts.adapter.restore(chosen / "adapter")
    rewards = {
        name: reward if isinstance(reward, Guarded) else guard(name, reward, monitor=True)  # of sets, for the credit
        for name, reward in measures(parts).items()
    }
    return Trained(parts, checkpoint.step_of(chosen), {**rewards, **lost}, KeptReferences(place.references))
