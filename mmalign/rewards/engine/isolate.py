"""A failing row must not take its batch with it: find it by halving."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mmalign.core.errors import (
    CapabilityError,
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtra,
    PackageError,
    ScoreError,
)
from mmalign.core.types import Rollout, Scores, Status
from mmalign.rewards.engine.merge import without_value

#: Faults of the set-up, the same for every row: they end the run with their own message.
NOT_ABOUT_A_ROW = (CapabilityError, CheckpointError, ConfigError, DataError, MissingExtra, PackageError, ScoreError)
#: What a reward's own code raises for a row: also `sys.exit`, which is not for a reward to decide.
OF_A_ROW = (Exception, SystemExit)


@dataclass
class _Budget:
    calls: int


def isolated(score: Callable[[Rollout], Scores], rollout: Rollout, split: bool = True) -> list[Scores]:
    """`score(rollout)` in pieces: whole if it succeeds, else halves, until single rows fail and become ERROR.

    A reward that fails on everything is not called once per row: after 4 + 4 log2(B) extra calls a failing piece is
    marked whole. `info` says what was raised and where. Without `split` a failing batch is marked at once.
    """
    budget = _Budget(4 + 4 * math.ceil(math.log2(max(len(rollout), 2))) if split else 0)
    return _halved(score, rollout, budget)


def _halved(score: Callable[[Rollout], Scores], rollout: Rollout, budget: _Budget) -> list[Scores]:
    try:
        return [score(rollout)]
    except NOT_ABOUT_A_ROW:
        raise
    except ImportError as error:
        raise ScoreError(f"a package that the reward uses cannot be imported: {said(error)}.") from error
    except OF_A_ROW as error:
        # The frames hold the failed graph's tensors; only the text is kept, and the graph goes before the next try.
        why = said(error)
    if len(rollout) == 1 or budget.calls <= 0:
        return [without_value(len(rollout), Status.ERROR, why)]
    budget.calls -= 2
    middle = (len(rollout) + 1) // 2
    halves = (rollout[:middle], rollout[middle:])
    return [piece for half in halves for piece in _halved(score, half, budget)]


def said(error: BaseException) -> str:
    """One line: what was raised, with which words, in which file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        words = words.split(". ")[0]
    return f"{type(error).__name__}: {words}{place}" if words else f"{type(error).__name__}{place}"
