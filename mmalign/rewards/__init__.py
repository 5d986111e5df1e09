"""Rewards: how good an output is. A component is one file here; sets and rows, rules and models, mixes of them.

    Reward      one score per row                   clip, pickscore, hpsv2, mlp_head, verifier, sharpness, …
                judges                              yes_no, align_evaluator
                of texts                            exact_match, multiple_choice, relaxed_accuracy, iou, tool_call, …
    SetReward   one score per set, credit per row   frechet, mmd, vendi
    Mix         named slots and a combination       what an objective is given

`mmalign.rewards.functional` holds the mathematics, `mmalign.rewards.combine` the ways to make one value of several,
`mmalign.rewards.encoders` what sets are embedded with, `mmalign.rewards.parsing` the reading of answers. Every call
goes through `Guarded`: a row that fails has a status, never a silent 0.0.

Names load on first use, so listing rewards imports none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mmalign.core.registry import Registry
from mmalign.rewards._other_names import OTHER_NAMES

if TYPE_CHECKING:
    from mmalign.rewards.engine.cache import ScoreCache as ScoreCache
    from mmalign.rewards.engine.call import Guarded as Guarded
    from mmalign.rewards.engine.mix import Mix as Mix
    from mmalign.rewards.engine.mix import Slot as Slot
    from mmalign.rewards.engine.rule import rule as rule
    from mmalign.rewards.engine.sets import Credit as Credit
    from mmalign.rewards.parsing import Unreadable as Unreadable

rewards = Registry(
    "reward",
    "mmalign.rewards",
    families=["image", "sound", "text", "sets", "judges"],
    elsewhere=OTHER_NAMES,
)

_WHERE = {
    "Credit": "engine.sets",
    "Guarded": "engine.call",
    "Mix": "engine.mix",
    "ScoreCache": "engine.cache",
    "Slot": "engine.mix",
    "Unreadable": "parsing",
    "rule": "engine.rule",
}
__all__ = ["Credit", "Guarded", "Mix", "ScoreCache", "Slot", "Unreadable", "load_reward", "rewards", "rule"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmalign.rewards' has no attribute '{name}'.")
    return getattr(importlib.import_module(f"mmalign.rewards.{_WHERE[name]}"), name)


def load_reward(name: str, allow: Collection[str] = (), **options: Any) -> Any:
    """The reward called `name` (a `Reward` or `SetReward`), built with `options`; "module:Class" only if in `allow`.

    Raises:
        ConfigError: an unknown name or option, or a value of the wrong kind; all of them at once.
    """
    return rewards.build({"name": name, **options}, at=name, allow=allow)
