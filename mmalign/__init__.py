"""Align text, image and audio generators with rewards.

    import mmalign
    mmalign.train("run.yaml", ["trainer.steps=50"], out="runs/mine")
    mmalign.load_reward("clip", checkpoint="assets/scenes_clip")(rollout)

`train`, `evaluate` and `load_run` return `Finished`, `Evaluated` and `Trained`; every error that is raised on purpose
is an `MmalignError`; the protocols say what a component of one's own needs (docs/plugins.md).

Names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other by spinning take the processor from those they wait for: on a busy machine steps
# took twenty times as long and more. The library that torch computes with reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"

_WHERE = {
    "load_adapter": "mmalign.adapters",
    "errors_as_sentences": "mmalign.core.sentences",
    "CapabilityError": "mmalign.core.errors",
    "CheckError": "mmalign.core.errors",
    "CheckpointError": "mmalign.core.errors",
    "ConfigError": "mmalign.core.errors",
    "DataError": "mmalign.core.errors",
    "Diverged": "mmalign.core.errors",
    "MediaError": "mmalign.core.errors",
    "MissingExtra": "mmalign.core.errors",
    "MmalignError": "mmalign.core.errors",
    "MmalignWarning": "mmalign.core.errors",
    "OutOfMemory": "mmalign.core.errors",
    "PackageError": "mmalign.core.errors",
    "ScoreError": "mmalign.core.errors",
    "Adapter": "mmalign.core.protocols",
    "DataSource": "mmalign.core.protocols",
    "DensityPolicy": "mmalign.core.protocols",
    "DiffPolicy": "mmalign.core.protocols",
    "LatentAdapter": "mmalign.core.protocols",
    "Objective": "mmalign.core.objective",
    "Policy": "mmalign.core.protocols",
    "Reward": "mmalign.core.protocols",
    "ScoreAdapter": "mmalign.core.protocols",
    "ScorePolicy": "mmalign.core.protocols",
    "SetReward": "mmalign.core.protocols",
    "StepPolicy": "mmalign.core.protocols",
    "TokenAdapter": "mmalign.core.protocols",
    "Combination": "mmalign.core.protocols",
    "Encoder": "mmalign.core.protocols",
    "PointSource": "mmalign.core.protocols",
    "Audio": "mmalign.core.types",
    "Experience": "mmalign.core.experience",
    "NoiseLevel": "mmalign.core.types",
    "Example": "mmalign.core.types",
    "Preference": "mmalign.core.types",
    "Prompt": "mmalign.core.types",
    "Rollout": "mmalign.core.types",
    "Scores": "mmalign.core.types",
    "Status": "mmalign.core.types",
    "rule": "mmalign.rewards",
    "load_reward": "mmalign.rewards",
    "Evaluated": "mmalign.run.evaluate",
    "evaluate": "mmalign.run.evaluate",
    "Trained": "mmalign.run.load",
    "load_run": "mmalign.run.load",
    "Finished": "mmalign.run.train",
    "Stopped": "mmalign.run.train",
    "train": "mmalign.run.train",
    "Hook": "mmalign.training.loop",
    "Session": "mmalign.training.session",
}
__all__ = [
    "Adapter",
    "Audio",
    "CapabilityError",
    "CheckError",
    "CheckpointError",
    "Combination",
    "ConfigError",
    "DataError",
    "DataSource",
    "DensityPolicy",
    "DiffPolicy",
    "Diverged",
    "Encoder",
    "Evaluated",
    "Example",
    "Experience",
    "Finished",
    "Hook",
    "LatentAdapter",
    "MediaError",
    "MissingExtra",
    "MmalignError",
    "MmalignWarning",
    "NoiseLevel",
    "Objective",
    "OutOfMemory",
    "PackageError",
    "PointSource",
    "Policy",
    "Preference",
    "Prompt",
    "Reward",
    "Rollout",
    "ScoreAdapter",
    "ScoreError",
    "ScorePolicy",
    "Scores",
    "Session",
    "SetReward",
    "Status",
    "StepPolicy",
    "Stopped",
    "TokenAdapter",
    "Trained",
    "__version__",
    "errors_as_sentences",
    "evaluate",
    "load_adapter",
    "load_reward",
    "load_run",
    "rule",
    "train",
]

if TYPE_CHECKING:
    from mmalign.adapters import load_adapter as load_adapter
    from mmalign.core.errors import CapabilityError as CapabilityError
    from mmalign.core.errors import CheckError as CheckError
    from mmalign.core.errors import CheckpointError as CheckpointError
    from mmalign.core.errors import ConfigError as ConfigError
    from mmalign.core.errors import DataError as DataError
    from mmalign.core.errors import Diverged as Diverged
    from mmalign.core.errors import MediaError as MediaError
    from mmalign.core.errors import MissingExtra as MissingExtra
    from mmalign.core.errors import MmalignError as MmalignError
    from mmalign.core.errors import MmalignWarning as MmalignWarning
    from mmalign.core.errors import OutOfMemory as OutOfMemory
    from mmalign.core.errors import PackageError as PackageError
    from mmalign.core.errors import ScoreError as ScoreError
    from mmalign.core.experience import Experience as Experience
    from mmalign.core.objective import Objective as Objective
    from mmalign.core.protocols import Adapter as Adapter
    from mmalign.core.protocols import Combination as Combination
    from mmalign.core.protocols import DataSource as DataSource
    from mmalign.core.protocols import DensityPolicy as DensityPolicy
    from mmalign.core.protocols import DiffPolicy as DiffPolicy
    from mmalign.core.protocols import Encoder as Encoder
    from mmalign.core.protocols import LatentAdapter as LatentAdapter
    from mmalign.core.protocols import PointSource as PointSource
    from mmalign.core.protocols import Policy as Policy
    from mmalign.core.protocols import Reward as Reward
    from mmalign.core.protocols import ScoreAdapter as ScoreAdapter
    from mmalign.core.protocols import ScorePolicy as ScorePolicy
    from mmalign.core.protocols import SetReward as SetReward
    from mmalign.core.protocols import StepPolicy as StepPolicy
    from mmalign.core.protocols import TokenAdapter as TokenAdapter
    from mmalign.core.sentences import errors_as_sentences as errors_as_sentences
    from mmalign.core.types import Audio as Audio
    from mmalign.core.types import Example as Example
    from mmalign.core.types import NoiseLevel as NoiseLevel
    from mmalign.core.types import Preference as Preference
    from mmalign.core.types import Prompt as Prompt
    from mmalign.core.types import Rollout as Rollout
    from mmalign.core.types import Scores as Scores
    from mmalign.core.types import Status as Status
    from mmalign.rewards import load_reward as load_reward
    from mmalign.rewards import rule as rule
    from mmalign.run.evaluate import Evaluated as Evaluated
    from mmalign.run.evaluate import evaluate as evaluate
    from mmalign.run.load import Trained as Trained
    from mmalign.run.load import load_run as load_run
    from mmalign.run.train import Finished as Finished
    from mmalign.run.train import Stopped as Stopped
    from mmalign.run.train import train as train
    from mmalign.training.loop import Hook as Hook
    from mmalign.training.session import Session as Session


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmalign' has no attribute '{name}'; it has {', '.join(sorted(_WHERE))}.")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
