"""What a run's numbers warn of, each with a sentence: the reward is exploited, outputs drift, the policy runs away.

| alarm | of | it is raised where |
|---|---|---|
| turned | two evaluations | a reward that is trained on rose and a judge fell, both beyond their 95 % intervals |
| drift | two evaluations | lengths, light, colour or loudness moved by more than they varied, or by a third |
| diversity | two evaluations | different prompts get equal texts, or the value of a `vendi` falls by a tenth |
| kl | steps | the KL jumps to `JUMP` times the median of the steps before |
| dead groups | steps | nine of ten groups say nothing, `STREAK` steps in a row |

Evaluations share their prompts and noise, so their differences are paired.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mmalign.evaluation.bootstrap import paired_interval
from mmalign.evaluation.output_statistics import distinct_share, output_statistics
from mmalign.evaluation.records import Evaluation

__all__ = ["Alarm", "StepAlarms", "compare_evaluations"]

JUMP, MEMORY, LEAST_KL = 10.0, 20, 1e-2  # of a KL in nats: how high, among how many steps, and what is no jump
DEAD, STREAK = 0.9, 10
THIRD, FEWER, TENTH = 1 / 3, 0.2, 0.1
_KLS = ("kl/reference", "kl/velocity", "kl/old")


@dataclass(frozen=True)
class Alarm:
    """A warning: what kind it is, what it is about, and a sentence."""

    kind: str
    about: str
    text: str


def compare_evaluations(
    earlier: Evaluation, now: Evaluation, trained: Collection[str], judges: Collection[str], step: int
) -> list[Alarm]:
    """Return what `now` warns of beside `earlier`, the evaluation after `step` (0: the start) on the same prompts.

    Args:
        trained: names of the rewards that are trained on.
        judges: names of judges and verifiers, which are not.
    """
    when = f"step {step}" if step else "the start"
    return [
        *_turned(earlier, now, trained, judges, when),
        *_drifts(earlier, now, when),
        *_diversity(earlier, now, when),
    ]


def _turned(
    earlier: Evaluation, now: Evaluation, trained: Collection[str], judges: Collection[str], when: str
) -> Iterator[Alarm]:
    rose = [name for name in trained if (moved := _moved(earlier, now, name)) and moved[0] > 0]
    for name in judges:
        moved = _moved(earlier, now, name)
        if rose and moved and moved[1] < 0:
            before, after, proxy = _mean(earlier, name), _mean(now, name), rose[0]
            yield Alarm(
                "turned",
                name,
                f"{name} fell from {before:.3g} ({when}) to {after:.3g} while {proxy}, which is trained on, rose from "
                f"{_mean(earlier, proxy):.3g} to {_mean(now, proxy):.3g}: the reward is being exploited. Take the "
                f"checkpoint of {when}, or hold what {name} sees by a reward of its own (combine: lagrangian).",
            )


def _moved(earlier: Evaluation, now: Evaluation, name: str) -> tuple[float, float] | None:
    """The interval of the change of a measure; None where one of them has not got it, or a set's has no resamples."""
    if name in earlier.scores and name in now.scores:
        change = paired_interval(earlier.values(name), now.values(name), now.group)
        return (change.low, change.high) if change.n else None
    if name in earlier.sets and name in now.sets:
        shifts = now.sets[name].resampled.astype(np.float64) - earlier.sets[name].resampled
        if len(shifts) and np.isfinite(shifts).all():
            low, high = np.quantile(shifts, (0.025, 0.975))
            return float(low), float(high)
    return None


def _mean(evaluation: Evaluation, name: str) -> float:
    return evaluation.means()[name]


def _drifts(earlier: Evaluation, now: Evaluation, when: str) -> Iterator[Alarm]:
    was = output_statistics(earlier.modality, earlier.outputs)
    is_ = output_statistics(now.modality, now.outputs)
    for name in was.keys() & is_.keys():
        if len(was[name]) != len(is_[name]):
            continue
        change = paired_interval(was[name], is_[name])
        far = max(float(was[name].std()), THIRD * abs(float(was[name].mean())) if name != "loudness" else 3.0)
        if (change.low > 0 or change.high < 0) and abs(change.value) > max(far, 1e-6):
            yield Alarm(
                "drift",
                name,
                f"the {name} of outputs moved from {was[name].mean():.3g} ({when}) to {is_[name].mean():.3g} in the "
                "mean: look at the samples; if nobody asked for it, a reward likes it.",
            )


def _diversity(earlier: Evaluation, now: Evaluation, when: str) -> Iterator[Alarm]:
    if now.modality == "text" and len(now.outputs) == len(earlier.outputs) > 1:
        was, is_ = distinct_share(earlier.outputs), distinct_share(now.outputs)
        if was - is_ > FEWER:
            yield Alarm(
                "diversity",
                "texts",
                f"{is_:.0%} of the texts differ from each other, {was:.0%} did at {when}: different prompts get the "
                "same answer. Lower trainer.lr, raise the KL's weight, or reward what the prompt asks for.",
            )
    for name in (n for n in now.sets if "vendi" in n and n in earlier.sets):
        moved, was, is_ = _moved(earlier, now, name), earlier.sets[name].value, now.sets[name].value
        if moved and moved[1] < 0 and is_ < (1 - TENTH) * was:
            yield Alarm(
                "diversity", name, f"{name}, the diversity of outputs, fell from {was:.3g} ({when}) to {is_:.3g}."
            )


@dataclass
class StepAlarms:
    """Looks at the numbers of each step; raises an alarm when it begins, not at every step that it goes on."""

    _kl: dict[str, deque[float]] = field(default_factory=dict)
    _dead: int = 0

    def see(self, numbers: Mapping[str, float]) -> list[Alarm]:
        """Return what a step's numbers warn of."""
        return [*self._jumps(numbers), *self._dead_groups(numbers)]

    def _jumps(self, numbers: Mapping[str, float]) -> Iterator[Alarm]:
        for name in _KLS:
            if (value := numbers.get(name)) is None:
                continue
            known = self._kl.setdefault(name, deque(maxlen=MEMORY))
            usual = statistics.median(map(abs, known)) if len(known) == MEMORY else None
            if usual is not None and abs(value) > max(JUMP * usual, LEAST_KL):
                yield Alarm(
                    "kl",
                    name,
                    f"{name} is {value:.3g}, {abs(value) / max(usual, 1e-12):.3g} times the median of the "
                    f"{MEMORY} steps before: the policy runs away. Lower trainer.lr or trainer.max_grad_norm.",
                )
                known.clear()  # what follows is measured by what is usual from now on
            known.append(value)

    def _dead_groups(self, numbers: Mapping[str, float]) -> Iterator[Alarm]:
        flat = [value for name, value in numbers.items() if name.endswith("/flat_groups")]
        self._dead = self._dead + 1 if flat and min(flat) >= DEAD else 0
        if self._dead == STREAK:
            yield Alarm(
                "dead groups",
                "groups",
                f"in {STREAK} steps in a row at least {DEAD:.0%} of the groups had equal rewards, which teach nothing: "
                "the prompts are too easy or too hard, or the reward is too coarse. Mix prompts, raise "
                "objective.group_size, or grade the reward.",
            )
