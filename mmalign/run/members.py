"""Has a component the members that a run uses? What is missing would otherwise end the run where it is first met."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mmalign.annotators._rows import Annotator
from mmalign.core.capabilities import require_members
from mmalign.core.config import Spec
from mmalign.core.objective import Objective
from mmalign.core.protocols import (
    Combination,
    DataSource,
    LatentAdapter,
    Policy,
    Reward,
    ScoreAdapter,
    ScorePolicy,
    SetReward,
    TokenAdapter,
)
from mmalign.run.registries import REGISTRIES

PROTOCOLS: Mapping[str, tuple[type, ...]] = {  # a component follows one of those of its kind
    "adapters": (LatentAdapter, TokenAdapter, ScoreAdapter),
    "policies": (Policy, ScorePolicy),
    "rewards": (Reward, SetReward),
    "combinations": (Combination,),
    "objectives": (Objective,),
    "data": (DataSource,),
    "annotators": (Annotator,),
}


def build_whole(kind: str, spec: Spec, at: str, allow: Collection[str] = (), **parts: Any) -> Any:
    """The component of `REGISTRIES[kind]` that `spec`, at `at` in the run file, describes; of `parts` those it takes.

    Raises:
        CapabilityError: it lacks members of its protocol.
    """
    component = REGISTRIES[kind].build(spec, at, allow, **parts)
    require_members(component, PROTOCOLS[kind], f"{at} '{spec['name']}'")
    return component
