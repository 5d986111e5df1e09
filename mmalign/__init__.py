"""Align text, image and audio generators with rewards.

    import mmalign
    mmalign.train("run.yaml", ["trainer.steps=50"], out="runs/mine")
    mmalign.load_reward("clip", checkpoint="assets/scenes_clip")(rollout)

Names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other by spinning take the processor from those they wait for: on a busy machine steps
# took twenty times as long and more. The library that torch computes with reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_WHERE = {
    "train": "mmalign.run.train",
    "evaluate": "mmalign.run.evaluate",
    "load_run": "mmalign.run.load",
    "load_reward": "mmalign.run.build",
    "load_adapter": "mmalign.adapters",
    "errors_as_sentences": "mmalign.cli._faults",
    "rule": "mmalign.rewards",
    "Prompt": "mmalign.core.types",
    "Preference": "mmalign.core.types",
    "Rollout": "mmalign.core.types",
    "Scores": "mmalign.core.types",
    "Status": "mmalign.core.types",
}
__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from mmalign.adapters import load_adapter as load_adapter
    from mmalign.cli._faults import errors_as_sentences as errors_as_sentences
    from mmalign.core.types import Preference as Preference
    from mmalign.core.types import Prompt as Prompt
    from mmalign.core.types import Rollout as Rollout
    from mmalign.core.types import Scores as Scores
    from mmalign.core.types import Status as Status
    from mmalign.rewards import rule as rule
    from mmalign.run.build import load_reward as load_reward
    from mmalign.run.evaluate import evaluate as evaluate
    from mmalign.run.load import load_run as load_run
    from mmalign.run.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmalign' has no attribute '{name}'; it has {', '.join(sorted(_WHERE))}.")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
