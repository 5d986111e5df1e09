"""Rewards: how good an output is. A component is one file here; sets and rows, rules and models, mixes of them.

    Reward      one score per row                   clip, aesthetic, mlp_head, verifier, sharpness, compressibility, …
                judges                              yes_no, align_evaluator
                of texts                            exact_match, multiple_choice, relaxed_accuracy, iou, tool_call, …
    SetReward   one score per set, credit per row   frechet, mmd, vendi
    Mix         named slots and a combination       what an objective is given

`mmalign.rewards.functional` holds the mathematics, `mmalign.rewards.combine` the ways to make one value of several,
`mmalign.rewards.encoders` what sets are embedded with, `mmalign.rewards.parsing` the reading of answers. Every call
goes through `Guarded`: a row that fails has a status, never a silent 0.0.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmalign.core.registry import Registry
from mmalign.rewards._cache import ScoreCache
from mmalign.rewards._credit import Credit
from mmalign.rewards._guarded import Guarded
from mmalign.rewards._mix import Mix, Slot
from mmalign.rewards._rule import rule
from mmalign.rewards.parsing import Unreadable

rewards = Registry("reward", "mmalign.rewards")

__all__ = ["Credit", "Guarded", "Mix", "ScoreCache", "Slot", "Unreadable", "load_reward", "rewards", "rule"]


def load_reward(name: str, allow: Collection[str] = (), **options: Any) -> Any:
    """The reward called `name` (a `Reward` or `SetReward`), built with `options`; "module:Class" only if in `allow`.

    Raises:
        ConfigError: an unknown name or option, or a value of the wrong kind; all of them at once.
    """
    return rewards.build({"name": name, **options}, at=name, allow=allow)
