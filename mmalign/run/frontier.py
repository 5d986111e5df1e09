"""A run beside the policies that cannot be beaten: its reward at its KL from its start, best of n, and the tilted ones.

Source: Yang et al. 2024 (arXiv 2404.01730); the estimates are `mmalign.evaluation.frontier`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.core.capabilities import judges_only, offers
from mmalign.core.config import draft
from mmalign.core.errors import CapabilityError, ConfigError, DataError, did_you_mean
from mmalign.core.protocols import SetReward, StepPolicy
from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout, join
from mmalign.evaluation.bootstrap import Interval, mean_interval
from mmalign.evaluation.evaluate import eval_mode
from mmalign.evaluation.frontier import best_of_n_curve, reward_at_kl
from mmalign.rewards.reference_sets.kept import KeptReferences
from mmalign.rewards.reference_sets.source import stored_in
from mmalign.run.build import Parts, examine
from mmalign.run.directory import RunDirectory
from mmalign.run.hooks import measures
from mmalign.run.resuming import checkpoint_of, resume_point

Progress = Callable[[int, int], None]
PLAIN = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "no_repeat_ngram": 0}  # of policy `tokens`


@dataclass(frozen=True)
class OnCurve:
    """Best of `n` of the start: its KL in nats, what it measures, and what the tilted policy of that KL does."""

    n: int
    kl: float
    value: float
    tilted: float


@dataclass(frozen=True)
class Frontier:
    """Where a run stands; KLs in nats, from its start.

    `curve` is best of n of the start. `kl`, `value` are the run's own, `start` what its start measures, `tilted` the
    best policy of the run's KL. `limit` is the KL up to which so many samples tell a tilted policy: log(samples) / 2.
    `left_out` prompts have an output without a score.
    """

    reward: str
    measure: str
    prompts: int
    samples: int
    left_out: int
    curve: list[OnCurve]
    start: Interval
    kl: Interval
    value: Interval
    tilted: float
    limit: float

    @property
    def efficiency(self) -> float:
        """The run's gain over that of the tilted policy of its KL; NaN where that one gains nothing."""
        most = self.tilted - self.start.value
        return (self.value.value - self.start.value) / most if most > 0 else float("nan")


def frontier(
    run: Path | str,
    samples: int = 32,
    prompts: int = 64,
    reward: str = "",
    measure: str = "",
    changes: Sequence[str] = (),
    allow: Collection[str] = (),
    advance: Progress = lambda done, total: None,
) -> Frontier:
    """Measure the newest checkpoint of a run (RUN@STEP, RUN@best: another) against best of n and tilted policies.

    Samples are drawn by the sampler of training, with `evaluation.seed`.

    Args:
        run: a run directory of a policy that replays its steps.
        samples: outputs of the start for each prompt; a quarter as many, at least one, of the run.
        prompts: held-out ones at most.
        reward: by which samples are chosen and weighed; "" is what the run trains on.
        measure: what is told of them, a reward or judge of the run; "" is the reward itself.
        changes: `key.path=value` changes of its run file.
        allow: modules that its run file may name.
        advance: told how many outputs of how many were made.

    Raises:
        ConfigError: no run there, a reward that it has not, or filters of sampling under which no KL is known.
        CapabilityError: a policy that replays no steps, or a reward of sets or of the group.
        DataError: no prompt all of whose outputs have a score.
    """
    place, step = resume_point(run)
    if not (place / "run.yaml").is_file():
        raise ConfigError(f"{place}: no run.yaml in it; name a directory that `mmalign train` wrote.")
    directory = RunDirectory(place)
    chosen = checkpoint_of(directory, step, "adapter")
    parts, questions = examine(draft(place / "run.yaml", changes), allow, training=False)
    by, measuring = _scorer(parts, reward), _scorer(parts, measure or reward)
    _require_known_kl(parts.policy)
    with stored_in(KeptReferences(directory.references)):
        parts.prepare()
    parts.load()
    parts.adapter.restore(chosen / "adapter")
    rows = list(questions)[:prompts]
    own_samples = max(1, samples // 4)
    work = _Sampling(parts, len(rows) * (samples + own_samples), advance)
    before = work.drawn(rows, samples, start=True)
    after = work.drawn(rows, own_samples, start=False)
    return _placed(before, after, (by, measuring), len(rows), (reward or "reward", measure or reward or "reward"))


def _placed(
    before: list[Rollout], after: list[tuple[Rollout, torch.Tensor]], scorers: tuple[Any, Any], count: int, names: Any
) -> Frontier:
    by, measuring = scorers
    rewards, measured = (_values(before, scorer).reshape(count, -1) for scorer in (by, measuring))
    own = _values([rollout for rollout, _ in after], measuring).reshape(count, -1)
    ratio = torch.cat([part for _, part in after]).double().numpy().reshape(count, -1)
    whole = np.isfinite(rewards).all(1) & np.isfinite(measured).all(1) & np.isfinite(own).all(1)
    if not whole.any():
        raise DataError(f"none of {count} prompts has a score for each of its outputs.")
    rewards, measured, own, ratio = rewards[whole], measured[whole], own[whole], ratio[whole]
    kl = mean_interval(ratio.mean(1))
    samples = rewards.shape[1]
    return Frontier(
        reward=names[0],
        measure=names[1],
        prompts=int(whole.sum()),
        samples=samples,
        left_out=int((~whole).sum()),
        curve=[
            OnCurve(int(point.by), point.kl, point.reward, reward_at_kl(rewards, point.kl, measured).reward)
            for point in best_of_n_curve(rewards, measured)
        ],
        start=mean_interval(measured.mean(1)),
        kl=kl,
        value=mean_interval(own.mean(1)),
        tilted=reward_at_kl(rewards, max(kl.value, 0.0), measured).reward,
        limit=float(np.log(samples) / 2),
    )


@dataclass
class _Sampling:
    """Draws with the sampler of training, some rows at a time."""

    parts: Parts
    total: int
    advance: Progress
    done: int = 0

    def drawn(self, prompts: Sequence[Prompt], count: int, start: bool) -> list[Any]:
        """`count` outputs of every prompt, those of one side by side: rollouts of the start; of the run with log-ratios
        (B,) of the steps that were drawn, whose mean is the KL."""
        policy: Any = self.parts.policy
        rows, made = [prompt for prompt in prompts for _ in range(count)], []
        rng = stream(self.parts.file.evaluation.seed, "frontier", "start" if start else "run")
        size = self.parts.file.evaluation.rows
        for first in range(0, len(rows), size):
            with torch.no_grad(), eval_mode(policy.module):
                with policy.reference() if start else nullcontext():
                    rollout = policy.sample(rows[first : first + size], rng)
                made.append(rollout if start else (rollout, _log_ratio(policy, rollout)))
            self.done += len(rollout)
            self.advance(self.done, self.total)
        return made


def _log_ratio(policy: Any, rollout: Rollout) -> torch.Tensor:
    """log π(steps) - log π_start(steps) of each row, (B,)."""
    own = policy.step_log_prob(rollout).sum(1)
    with policy.reference():
        return (own - policy.step_log_prob(rollout).sum(1)).cpu()


def _values(rollouts: Sequence[Rollout], scorer: Any) -> np.ndarray:
    with torch.no_grad():
        scores = join([scorer(rollout).to("cpu") for rollout in rollouts])
    return scores.value.double().numpy()


def _scorer(parts: Parts, name: str) -> Any:
    """What scores rows: the reward or judge of that name, "" for what the run trains on."""
    if not name:
        if parts.reward is None:
            raise ConfigError(f"this run trains on no reward; --reward names one: {', '.join(measures(parts))}.")
        if parts.reward.relative:
            raise CapabilityError(
                "this run's reward compares the outputs of a group, so that no output has one of its own; --reward "
                f"names one: {', '.join(measures(parts))}."
            )
        return parts.reward
    every = measures(parts)
    if name not in every:
        raise ConfigError(f"'{name}' is no reward of this run.{did_you_mean(name, every)} Known: {', '.join(every)}.")
    if isinstance(every[name], SetReward):
        raise CapabilityError(f"'{name}' judges sets; best of n needs a reward of single rows.")
    return every[name]


def _require_known_kl(policy: Any) -> None:
    """A policy whose draws have the log-probs that it tells."""
    if judges_only(policy) or not offers(type(policy), StepPolicy):
        raise CapabilityError(
            f"{type(policy).__name__} replays no steps, so that its KL from the start is not known; there are tokens, "
            "flow and ddpm."
        )
    if odd := [name for name, plain in PLAIN.items() if getattr(policy, name, plain) != plain]:
        plain = " ".join(f"policy.{name}={PLAIN[name]:g}" for name in odd)
        raise ConfigError(f"policy.{odd[0]}: draws from another distribution than the KL is of; give {plain}.")


__all__ = ["Frontier", "OnCurve", "frontier"]
