"""The rewards of a server: made of their names, tried, and described to who wants to ask them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, field
from typing import Any

import torch

from mmalign.core.errors import ConfigError, MmalignError, did_you_mean
from mmalign.core.protocols import Calibrated, SetReward, Stateful
from mmalign.core.types import Rollout, Status
from mmalign.rewards import load_reward
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.call import Guarded
from mmalign.rewards.engine.contract import describe_error
from mmalign.rewards.engine.sets import Credit
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.run.serving.batching import Scorer
from mmalign.run.serving.probe import small_probe

__all__ = ["Served", "made", "named_rewards"]


@dataclass
class Served:
    """One reward of a server.

    Args:
        component: the name that `mmalign list rewards` knows it by.
        scorer: its queue and thread.
        probe: the row that `tried` scores; None where there is none, and `unprobed` says why.
        parts: the names of the parts that the last probe had.
        identity: what tells it from others that score otherwise, once it is prepared; None: its scores vary.
    """

    component: str
    scorer: Scorer
    probe: Rollout | None = None
    unprobed: str = ""
    parts: tuple[str, ...] = ()
    identity: str | None = field(default=None, init=False)

    @property
    def reward(self) -> Guarded:
        """The reward as it is called."""
        return self.scorer.reward

    def prepare(self) -> None:
        """Load what it needs, and take down what it is made of; raises what cannot be loaded."""
        self.reward.prepare()
        inner = self.reward.reward
        who = identity(inner)
        self.identity = None if who is None else hashlib.sha256(who.encode()).hexdigest()
        if self.probe is None:
            self.probe, self.unprobed = small_probe(inner)

    def described(self) -> dict[str, Any]:
        """What /spec says: outputs, range, columns; `identity` is the same while the scores of equal rows are."""
        traits = self.reward.traits
        return {
            "reward": self.component,
            "modalities": sorted(self.reward.modalities),
            "range": [_bound(bound) for bound in self.reward.range],
            "parts": list(self.parts),
            "needs": list(traits.needs),
            "differentiable": False,
            "batch_dependent": traits.batch_dependent,
            "identity": self.identity,
        }

    def tried(self, patience: float) -> dict[str, Any]:
        """Score the probe as any other row: `ok`, its `status`, `value` and the `seconds`, or why it was not scored."""
        if self.probe is None:
            return {"ok": True, "status": "not tried", "why": self.unprobed}
        start = time.perf_counter()
        try:
            scores = self.scorer.submit(self.probe).result(patience).scores
        except TooLate:
            return {"ok": False, "status": "timeout", "why": f"no answer within {patience:g} s"}
        except MmalignError as error:
            return {"ok": False, "status": "error", "why": str(error)}
        except Exception as error:
            return {"ok": False, "status": "error", "why": describe_error(error)}
        seconds = round(time.perf_counter() - start, 4)
        status = Status(int(scores.status[0]))
        self.parts = tuple(scores.parts)
        ok = status not in (Status.ERROR, Status.TIMEOUT)
        why = {"why": scores.info[0]} if scores.info and scores.info[0] else {}
        value = float(scores.value[0])
        return {"ok": ok, "status": status.label, "value": value if ok and value == value else None, **why} | {
            "seconds": seconds
        }


def named_rewards(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Component and options of each reward, by the name it is served under.

    `clip` serves a reward under its own name, `looks=clip` under another. The options of one reward are options, those
    of several stand under their names.

    Raises:
        ConfigError: a name that is taken twice, or options of a reward that is not served; all of them at once.
    """
    pairs = [(name.partition("=")[0], name.partition("=")[2] or name) for name in names]
    faults = [
        f"'{name}' is named twice; write OTHER={component} for one of them."
        for at, (name, component) in enumerate(pairs)
        if name in [earlier for earlier, _ in pairs[:at]]
    ]
    faults += [f"'{name}': write NAME=REWARD, or REWARD alone." for name, component in pairs if not name]
    known = [name for name, _ in pairs]
    if len(pairs) == 1:
        given: dict[str, Any] = {known[0]: dict(options)}
    else:
        given = dict(options)
        faults += [
            f"--set {name}: of several rewards, options are --set NAME.OPTION=VALUE.{did_you_mean(name, known)} "
            f"Served are {', '.join(known)}."
            for name, value in given.items()
            if name not in known or not isinstance(value, dict)
        ]
    if faults:
        raise ConfigError(faults)
    return {name: (component, given.get(name, {})) for name, component in pairs}


def made(
    rewards: Mapping[str, tuple[str, dict[str, Any]]],
    allow: Collection[str],
    device: torch.device,
    batch: int,
    wait: float,
) -> dict[str, Served]:
    """Make every reward and its thread; nothing is loaded yet.

    Raises:
        ConfigError: unknown names or options, or a reward that cannot be asked row by row; all of them at once.
    """
    guarded, faults = {}, []
    for name, (component, options) in rewards.items():
        try:
            if "name" in options:
                raise ConfigError(f"{name}: --set name=…: the reward is named before the options.")
            guarded[name] = Guarded(name, _of_rows(component, load_reward(component, allow, **options)), monitor=True)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return {name: Served(rewards[name][0], Scorer(reward, device, batch, wait)) for name, reward in guarded.items()}


def _of_rows(name: str, reward: Any) -> Any:
    """The reward, unless it is one of those that are not asked of rows from elsewhere."""
    if isinstance(reward, SetReward | Credit):
        raise ConfigError(f"{name}: scores sets, which must be in the run's own process; serve rewards of rows.")
    if isinstance(reward, Stateful | Calibrated):
        raise ConfigError(f"{name}: learns from the run that it scores, whose checkpoints hold that; it is not served.")
    if RewardTraits.of(reward).reads_features:
        raise ConfigError(f"{name}: compares outputs by the policy's own features, which do not travel.")
    return reward


def _bound(bound: float) -> float | str:
    return bound if abs(bound) != float("inf") else str(bound)
