"""Rewards: how good an output is. A component is one file here; sets and rows, rules and models, mixes of them.

    Reward      one score per row                   clip, pickscore, hpsv2, mlp_head, verifier, sharpness, …
                judges                              yes_no, align_evaluator, criteria, pairwise, …
                of texts                            exact_match, multiple_choice, relaxed_accuracy, tool_call, …
                of boxes in texts                   iou
    SetReward   one score per set, credit per row   frechet, mmd, vendi
    Mix         named slots and a combination       what an objective is given

`mmalign.rewards.functional` holds the mathematics, `mmalign.rewards.combine` the ways to make one value of several,
`mmalign.rewards.encoders` what sets are embedded with, `mmalign.rewards.parsing` the reading of answers. Every call
goes through `Guarded`: a row that fails has a status, never a silent 0.0.

Names load on first use, so listing rewards imports none of them.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mmalign.core import packages
from mmalign.core.errors import ConfigError
from mmalign.core.registry import Registry, construct, making
from mmalign.rewards._other_names import OTHER_NAMES

if TYPE_CHECKING:
    from mmalign.rewards.by_row import rule as rule
    from mmalign.rewards.engine.cache import ScoreCache as ScoreCache
    from mmalign.rewards.engine.call import Guarded as Guarded
    from mmalign.rewards.engine.mix import Mix as Mix
    from mmalign.rewards.engine.mix import Slot as Slot
    from mmalign.rewards.engine.sets import Credit as Credit
    from mmalign.rewards.parsing import Unreadable as Unreadable


class RewardRegistry(Registry):
    """Builds rewards; one with a field `make` is given the way to build parts of its own (a generator, a judge)."""

    def build(self, spec: Any, at: str, allow: Collection[str] = (), **given: Any) -> Any:
        """Make the reward that `spec` (`name` and its options) describes; `at` is its place in the run file.

        Raises:
            ConfigError: every fault of its options and of its traits (`RewardTraits`) at once.
        """
        self.require_spec(spec, at)
        try:
            kind = self.get(spec["name"], allow)
        except ConfigError:
            return super().build(spec, at, allow, **given)  # which says why
        return construct_reward(kind, {k: v for k, v in spec.items() if k != "name"}, at, allow, **given)


def construct_reward(kind: type, options: Mapping[str, Any], at: str, allow: Collection[str] = (), **given: Any) -> Any:
    """The reward of class `kind` with `options`, once its traits are such; parts of its own are built behind `at`."""
    from mmalign.rewards.engine.traits import check_traits

    packages.require_matching_once()
    check_traits(kind, at)
    return construct(kind, options, at, **given, **making(kind, at, allow))


rewards = RewardRegistry(
    "reward",
    "mmalign.rewards",
    families=["image", "sound", "text", "boxes", "sets", "judges"],
    elsewhere=OTHER_NAMES,
)

_WHERE = {
    "Credit": "engine.sets",
    "Guarded": "engine.call",
    "Mix": "engine.mix",
    "ScoreCache": "engine.cache",
    "Slot": "engine.mix",
    "Unreadable": "parsing",
    "rule": "by_row",
}
__all__ = ["Credit", "Guarded", "Mix", "ScoreCache", "Slot", "Unreadable", "load_reward", "rewards", "rule"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmalign.rewards' has no attribute '{name}'.")
    return getattr(importlib.import_module(f"mmalign.rewards.{_WHERE[name]}"), name)


def load_reward(name: Any, allow: Collection[str] = (), **options: Any) -> Any:
    """The reward called `name`, whatever it is made of (a generator, a judge); "module:Class" only if in `allow`.

    A set reward can be called like others: rows score their credit in the set of all, and `parts["set"]` is its value;
    the reward with its options is then `.reward` of what is returned.

    Args:
        name: the name of a reward, or a reward class of your own (a function under `@rule` is one).
        allow: modules that may be named.
        options: of the reward.

    Raises:
        ConfigError: an unknown name or option, a value of the wrong kind, a misspelt trait; all of them at once.
    """
    from mmalign.rewards.engine.sets import Credit, scores_only_sets

    if isinstance(name, str):
        made = rewards.build({"name": name, **options}, name, allow)
    elif isinstance(name, type) and dataclasses.is_dataclass(name):
        made = construct_reward(name, options, name.__name__, allow)
    else:
        what = getattr(name, "__name__", type(name).__name__)
        raise ConfigError(
            f"'{what}': a reward is loaded by its name or its class; put @mmalign.rule(modalities=…, range=…) above a "
            "function to make it one. An object that is a reward already needs no loading."
        )
    return Credit(made) if scores_only_sets(made) else made
