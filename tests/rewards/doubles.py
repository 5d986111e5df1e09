"""Rewards made to succeed or fail on purpose, and rollouts of plain pictures and texts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from mmalign.core.protocols import FrameEncoder, TextEncoder
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards import rewards, rule
from mmalign.rewards.encoders import make_encoder
from mmalign.rewards.models.asking import Answers


def built(name, **options):
    """The reward as a run file builds it: a set reward itself, without the credit of rows."""
    return rewards.build({"name": name, **options}, name)


def text_encoder(spec) -> TextEncoder:
    """The encoder of a spec, which has to embed texts."""
    encoder = make_encoder(spec)
    assert isinstance(encoder, TextEncoder)
    return encoder


def frame_encoder(spec) -> FrameEncoder:
    """The encoder of a spec, which has to embed sounds as frames."""
    encoder = make_encoder(spec)
    assert isinstance(encoder, FrameEncoder)
    return encoder


@dataclass
class Answering:
    """A function in the place of a loaded judge."""

    answer: Callable[[list[Prompt]], Answers]

    def prepare(self) -> None:
        """Nothing is to be loaded."""

    def fingerprint(self) -> str:
        return ""

    def __call__(self, questions: list[Prompt]) -> Answers:
        return self.answer(questions)


def noting(function: Callable[..., Any], note: Callable[[Any], None]) -> Callable[..., Any]:
    """`function`, each call of which first hands its first argument to `note`."""

    def noted(first, *rest):
        note(first)
        return function(first, *rest)

    return noted


def pictures(prompts=("a", "b"), per_prompt=2, size=8, seed=0):
    """Random pictures, group-major."""
    texts = [p for p in prompts for _ in range(per_prompt)]
    rng = torch.Generator().manual_seed(seed)
    return Rollout(
        prompts=[Prompt(text=t) for t in texts],
        output=torch.rand(len(texts), 3, size, size, generator=rng),
        group=torch.arange(len(prompts)).repeat_interleave(per_prompt),
    )


def answers(*texts, per_prompt=1):
    """Texts as outputs; every `per_prompt` of them share a group."""
    group = torch.arange(len(texts)) // per_prompt
    return Rollout(prompts=[Prompt(text=f"q{int(g)}") for g in group], output=list(texts), group=group)


@dataclass
class Numbers:
    """Scores texts by reading them as numbers; raises on what is none."""

    scale: float = 1.0
    modalities = frozenset({"text"})
    range = (-100.0, 100.0)
    differentiable = False
    deterministic = True
    calls: list = field(default_factory=list, init=False)

    def __call__(self, rollout):
        self.calls.append(len(rollout))
        return Scores.of(torch.tensor([self.scale * float(text) for text in rollout.output]))


@dataclass
class Brightness:
    """Mean of the pixels; differentiable."""

    modalities = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = True
    deterministic = True

    def __call__(self, rollout):
        return Scores.of(rollout.output.mean((1, 2, 3)))


@dataclass
class Given:
    """Whatever scores it was given, for contract tests."""

    scores: Scores
    bounds: tuple = (-1.0, 1.0)
    modalities = frozenset({"text", "image"})
    differentiable = False

    @property
    def range(self):
        return self.bounds

    def __call__(self, rollout):
        return self.scores


@rule(modalities={"text"}, range=(-1.0, 1.0), isolated=True)
def troubled(prompt: Prompt, output: str, *, nap: float = 60.0) -> float | Status | None:
    """Does what the text says: sleep, exit, raise, decline, fail, or score."""
    import os
    import sys

    def leave_the_folder() -> float:
        os.chdir("/")
        return 0.5

    acts = {
        "sleep": lambda: time.sleep(nap),
        "exit": lambda: os._exit(7),
        "leave": lambda: sys.exit(3),
        "move": leave_the_folder,
        "raise": lambda: 1 / 0,
        "fail": lambda: Status.PARSE_FAIL,
        "decline": lambda: None,
        "nan": lambda: float("nan"),
    }
    return acts[output]() if output in acts else float(output)


def scores(values, statuses=None, **more):
    """Scores from lists; status by name where a value is None."""
    nan = float("nan")
    value = torch.tensor([nan if v is None else v for v in values], dtype=torch.float32)
    states = statuses or [Status.ERROR if v is None else Status.OK for v in values]
    return Scores(value, torch.tensor([int(s) for s in states], dtype=torch.int8), **more)
