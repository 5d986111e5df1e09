"""Several named rewards as the one an objective is given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import combinations as pairs_of
from math import isfinite
from typing import Any, Literal

import torch

from mmalign.core.errors import CapabilityError, ConfigError, MmalignWarning, did_you_mean
from mmalign.core.options import Count, Positive, outside, refuse
from mmalign.core.protocols import (
    Adaptive,
    Combination,
    Gather,
    Mean,
    PerPrompt,
    Stateful,
    Synchronized,
    one_alone,
    one_process,
)
from mmalign.core.registry import construct
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.rewards.combine.weighted_sum import WeightedSum
from mmalign.rewards.engine.cache import ScoreCache, prompt_key
from mmalign.rewards.engine.call import Guarded, guard
from mmalign.rewards.engine.contract import joined_info
from mmalign.rewards.engine.foreign_code import prepare_all
from mmalign.rewards.engine.mapped import span_faults
from mmalign.rewards.engine.metrics import correlation, flat_share
from mmalign.rewards.engine.sets import Credit, scores_only_sets
from mmalign.rewards.engine.traits import CombinationTraits

_SLOTS = "slots/"  # before what rewards of a mix have learned


@dataclass
class Slot:
    """A reward and its place in a mix.

    Args:
        reward: a `Reward`, or a `SetReward`, which scores rows by their credit.
        weight: in the combination.
        monitor: only logged: no part of the value, and its failures never stop the run.
        timeout: seconds per row, for rewards that declare `isolated = True`.
        call_rows: rows per call of the reward (0: all); groups stay whole.
        over: the set of a set reward: the whole batch, or each prompt's group on its own.
        map: [low, high]: the values that become 0 and 1, those between in proportion and those outside cut; for
            combinations that need rewards on one scale. Everything that is logged is mapped, too.
    """

    reward: Any  # as in `Guarded`
    weight: float = 1.0
    monitor: bool = False
    timeout: Positive | None = None
    call_rows: Count = 0
    over: Literal["batch", "group"] = "batch"
    map: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        refuse(
            outside(self, ("weight",), "finite", isfinite),
            [] if self.timeout is None or self.timeout > 0 else [f"timeout must be above 0, not {self.timeout}"],
            outside(self, ("call_rows",), "0 or above", lambda value: value >= 0),
            [] if self.map is None else span_faults(self.map),
        )


class Ranges(Mapping[str, tuple[float, float]]):
    """The range of each slot, read when it is asked for: that of a logit is in its model's weights."""

    def __init__(self, slots: Mapping[str, Guarded]) -> None:
        self._slots = slots

    def __getitem__(self, name: str) -> tuple[float, float]:
        return self._slots[name].range

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)


@dataclass
class Mix:
    """Named slots and a combination; itself a `Reward`.

    The value is the combination of the slots that are not monitors. `parts` holds every slot's value under its name,
    monitors too, and each slot's own parts under "slot/part". `info` names the slot that has something to say. With one
    trained slot its confidence passes through. Step credit passes on the scale of the value where the combination is
    linear in what credits steps; where it is not, it is dropped, and a warning says so once.

    Args:
        slots: by the name that logs and messages use; a reward that needs no options may stand there as it is.
        combination: see `mmalign.rewards.combine`.
        failed_share: share of a slot's rows, over its last 256, whose failure ends the run with a ScoreError; 1: never.
        cache: where scores of rows seen before are looked up.
    """

    slots: dict[str, Any]  # of `Slot`, once built
    combination: Combination = field(default_factory=WeightedSum)
    failed_share: float = 0.5
    cache: ScoreCache | None = None
    _last: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _valued: tuple[int, int] = field(
        default=(0, 0), init=False, repr=False
    )  # rows since the last metrics; with a value
    _dropped: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.slots = {name: slot if isinstance(slot, Slot) else Slot(slot) for name, slot in self.slots.items()}
        trained = [name for name, slot in self.slots.items() if not slot.monitor]
        faults = [] if trained else ["rewards: no reward is trained on; name one without `monitor: true`."]
        faults += [
            f"combine: '{name}' is no trained reward.{did_you_mean(name, trained)} Known: {', '.join(trained)}."
            for name in self.traits.mentions
            if name not in trained
        ]
        self._guarded: dict[str, Guarded] = {}
        for name, slot in self.slots.items():
            try:
                self._guarded[name] = self._guard(name, slot)
            except ConfigError as error:
                faults += error.faults
        if not faults and (faults_of := self.traits.faults) is not None:
            faults += faults_of(Ranges({slot.name: slot for slot in self._trained}), self._weights)
        if faults:
            raise ConfigError(faults)
        if not self.modalities:
            judged = "; ".join(f"{n}: {', '.join(sorted(g.modalities))}" for n, g in self._guarded.items())
            raise CapabilityError(f"the rewards share no modality ({judged}); remove those that judge another.")

    def _guard(self, name: str, slot: Slot) -> Guarded:
        options = {f.name: getattr(slot, f.name) for f in fields(slot) if f.name != "reward"}
        self.slots[name] = slot = construct(Slot, options, f"rewards.{name}", reward=slot.reward)  # checks their types
        if isinstance(slot.reward, Credit):  # as `mmalign.load_reward` gives set rewards; the slot says over what
            slot.reward = slot.reward.reward
        reward = slot.reward
        if scores_only_sets(reward):
            if slot.map is not None:
                raise ConfigError(f"rewards.{name}.map: a set's rows are scored by credit around 0; remove it.")
            reward = Credit(reward, slot.over, slot.call_rows, name)
        elif slot.over != "batch":
            raise ConfigError(f"rewards.{name}.over: only set rewards are taken over a set; remove it.")
        return guard(
            name,
            reward,
            weight=slot.weight,
            monitor=slot.monitor,
            rows=slot.call_rows,
            timeout=slot.timeout,
            cache=self.cache,
            failed_share=self.failed_share,
            map=slot.map,
        )

    @property
    def _trained(self) -> list[Guarded]:
        return [guarded for guarded in self._guarded.values() if not guarded.monitor]

    @property
    def _weights(self) -> dict[str, float]:
        return {slot.name: slot.weight for slot in self._trained}

    @cached_property
    def traits(self) -> CombinationTraits:
        """What the combination says of itself, read once."""
        return CombinationTraits.of(self.combination)

    def guarded(self, name: str) -> Guarded:
        """The slot `name` as it is called."""
        return self._guarded[name]

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs every slot can judge."""
        return frozenset.intersection(*(frozenset(guarded.modalities) for guarded in self._guarded.values()))

    @property
    def range(self) -> tuple[float, float]:
        """The range that follows from the trained slots' ranges and the combination."""
        return self.combination.bounds({slot.name: slot.range for slot in self._trained}, self._weights)

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches the output through every trained slot and the combination."""
        return self.combination.differentiable and all(slot.differentiable for slot in self._trained)

    @property
    def relative(self) -> bool:
        """Does the value of a row depend on the others of its group? Those of two calls then do not compare."""
        if self.traits.relative is not None:
            return self.traits.relative
        alone = len(self._trained) == 1 and isinstance(self.combination, WeightedSum)
        return self.traits.scale == "group_z" and not alone

    @property
    def over_ranks(self) -> Mean:
        """Averages over processes, for combinations that learn from all rows; the loop sets it."""
        return self.combination.over_ranks if isinstance(self.combination, Synchronized) else one_process

    @over_ranks.setter
    def over_ranks(self, mean: Mean) -> None:
        for part in (self.combination, *(slot.reward for slot in self.slots.values())):
            if isinstance(part, Synchronized):
                part.over_ranks = mean

    @property
    def members(self) -> dict[str, tuple[Guarded, float]]:
        """The trained slots with their weights, for objectives that treat each on its own.

        Each scores rows; those of a set reward are `GuardedSet`, which also embed rows and score sets.
        """
        return {slot.name: (slot, slot.weight) for slot in self._trained}

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows.

        Raises:
            ScoreError: a trained slot failed on too many rows.
            CapabilityError: a slot cannot judge this modality.
        """
        with self._learning():
            scores = {name: guarded(rollout) for name, guarded in self._guarded.items()}
        trained = {slot.name: scores[slot.name] for slot in self._trained}
        value = self._combined(trained, rollout)
        self._valued = (self._valued[0] + len(value), self._valued[1] + int(value.valid.sum()))
        if len(trained) == 1:
            only = next(iter(trained.values()))
            value.confidence = only.confidence if value.confidence is None else value.confidence
        self._say_dropped([name for name, own in trained.items() if own.per_step is not None], value)
        value.parts = {name: own.value.detach() for name, own in scores.items()}
        value.parts |= {f"{name}/{part}": v.detach() for name, own in scores.items() for part, v in own.parts.items()}
        value.info = joined_info(scores)
        self._last = {name: own.value.detach() for name, own in scores.items()} | {"group": rollout.group}
        return value

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Inside it, rewards that learn do so; calls of a slot by itself, as in evaluation, teach nothing."""
        learners = [slot.reward for slot in self.slots.values() if isinstance(slot.reward, Adaptive)]
        try:
            for reward in learners:
                reward.adapting = True
            yield
        finally:
            for reward in learners:
                reward.adapting = False

    def _combined(self, trained: Mapping[str, Scores], rollout: Rollout) -> Scores:
        if not self.samples:
            return self.combination(trained, self._weights, rollout.group)
        known: dict[int, bytes] = {}  # rows of a group share their prompt
        keys = [known.get(id(p)) or known.setdefault(id(p), prompt_key(p)) for p in rollout.prompts]
        assert isinstance(self.combination, PerPrompt)
        return self.combination.of_rows(keys, trained, self._weights, rollout.group)

    @property
    def samples(self) -> int:
        """How many outputs of the policy's start the combination measures a prompt's own against; mostly 0."""
        combination = self.combination
        return combination.samples if isinstance(combination, PerPrompt) and combination.of_prompts else 0

    def uncalibrated(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return those of the prompts whose references are not known yet, each once."""
        if not self.samples:
            return []
        assert isinstance(self.combination, PerPrompt)
        return [prompts[place] for place in self.combination.base.unknown([prompt_key(p) for p in prompts])]

    def calibrate(self, rollout: Rollout) -> None:
        """Take in `samples` outputs of the policy's start on one prompt; no metric counts them."""
        assert isinstance(self.combination, PerPrompt)
        parts = {}
        for slot in self._trained:
            with slot.uncounted():
                parts[slot.name] = slot(rollout)
        self.combination.base.take_in(prompt_key(rollout.prompts[0]), parts)

    def _say_dropped(self, crediting: list[str], value: Scores) -> None:
        if crediting and value.per_step is None and not self._dropped:
            self._dropped = True
            warnings.warn(
                f"rewards.{crediting[0]} credits single steps, which combine: {type(self.combination).__name__} of "
                f"{len(self._trained)} rewards does not keep: whole outputs are credited. A weighted_sum keeps them "
                "where it is of one reward, or raw and all credit steps.",
                MmalignWarning,
                stacklevel=3,
            )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside it, combinations that learn do not: for evaluation."""
        if not isinstance(self.combination, Adaptive):
            yield
            return
        before = self.combination.adapting
        try:
            self.combination.adapting = False
            yield
        finally:
            self.combination.adapting = before

    def metrics(self) -> dict[str, Tensor]:
        """Scalars for the logs, since the last call; those of differences within a batch are of the latest batch.

        "reward/slot" is the mean value, "reward/slot/…" the rest of `MetricAccumulator.compute` and "flat_groups", the
        share of groups in which nothing differs; "correlation/a/b" of every two slots; and what the combination says of
        itself.
        """
        return self.shared_metrics(one_alone)

    def shared_metrics(self, gather: Gather) -> dict[str, Tensor]:
        """The same of the rows of every process; all call it."""
        logged: dict[str, Tensor] = {}
        for name, guarded in self._guarded.items():
            numbers = guarded.shared_metrics(gather)
            if "mean" in numbers:
                logged[f"reward/{name}"] = numbers.pop("mean")
            logged |= {f"reward/{name}/{key}": value for key, value in numbers.items()}
        values = _side_by_side(gather({name: value.cpu() for name, value in self._last.items()}))
        if values:
            group = values.pop("group")
            logged |= {f"reward/{n}/flat_groups": torch.tensor(flat_share(v, group)) for n, v in values.items()}
            for first, second in pairs_of(values, 2):
                if (r := correlation(values[first], values[second])) is not None:
                    logged[f"correlation/{first}/{second}"] = torch.tensor(r)
        self._last, self._valued = {}, (0, 0)
        return logged if self.traits.metrics is None else {**logged, **self.traits.metrics()}

    def prepare(self) -> None:
        """Load what every slot needs, monitors too. Raises MmalignError: every fault at once."""
        prepare_all({f"rewards.{name}": slot for name, slot in self._guarded.items()})

    @property
    def unscored(self) -> bool:
        """Has none of the rows since the last call of `metrics` a value?"""
        rows, valued = self._valued
        return rows > 0 and valued == 0

    def summary(self) -> str:
        """What the latest rows of every trained slot came to: statuses, reasons, values."""
        return " ".join(slot.summary() for slot in self._trained)

    def state_dict(self) -> dict[str, Tensor]:
        """What a stateful combination has learned, and behind "slots/<name>/" what rewards have; mostly empty."""
        state = dict(self.combination.state_dict()) if isinstance(self.combination, Stateful) else {}
        for name, reward in self._stateful.items():
            state |= {f"{_SLOTS}{name}/{key}": value for key, value in reward.state_dict().items()}
        return state

    @property
    def _stateful(self) -> dict[str, Stateful]:
        return {name: slot.reward for name, slot in self.slots.items() if isinstance(slot.reward, Stateful)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        for name, reward in self._stateful.items():
            start = f"{_SLOTS}{name}/"
            reward.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
        state = {key: value for key, value in state.items() if not key.startswith(_SLOTS)}
        if isinstance(self.combination, Stateful):
            self.combination.load_state_dict(state)
        elif state:
            raise ValueError(f"the saved state holds {sorted(state)}, but this combination keeps none")

    def close(self) -> None:
        """End the slots' own processes."""
        for guarded in self._guarded.values():
            guarded.close()


def _side_by_side(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The batches of several processes as one; their groups are different ones."""
    filled = [batch for batch in batches if batch]
    if not filled:
        return {}
    first = torch.tensor([0, *(int(batch["group"].max()) + 1 for batch in filled)]).cumsum(0).tolist()
    moved = [{**batch, "group": batch["group"] + start} for batch, start in zip(filled, first, strict=False)]
    return {name: torch.cat([batch[name] for batch in moved]) for name in filled[0]}
