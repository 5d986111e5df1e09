"""The checks of combinations, encoders and point sources find each planted fault, and pass what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Audio, Prompt, Rollout, Scores
from mmalign.rewards.combine import combinations
from mmalign.rewards.encoders import make_encoder
from mmalign.rewards.points import KeyPoint, make_source
from mmalign.testing import check_combination, check_encoder, check_point_source

OPTIONS: dict[str, dict[str, Any]] = {
    "confidence": {"rule": "a", "model": "b"},
    "group_contrast": {"correct": "a", "behaviour": "b"},
    "gate": {"by": "a", "floor": -1.0},
    "lagrangian": {"thresholds": {"a": 0.5}},
    "stratified": {"rule": "a", "model": "b"},
}
QUESTIONS = [Prompt("a star", meta={"key_points": [{"point": "counting", "question": "one star?"}]}), Prompt("b")]


@dataclass
class Average:
    """The mean of the parts, with one planted `fault`."""

    fault: str = ""

    differentiable: ClassVar[bool] = True

    def __call__(self, parts: Mapping[str, Scores], weights: Mapping[str, float], group: torch.Tensor) -> Any:
        value = torch.stack([part.value for part in parts.values()]).mean(0)
        status = torch.stack([part.status for part in parts.values()]).amax(0)
        match self.fault:
            case "order":
                value = value * (1 + torch.arange(len(value)) / 100)
            case "random":
                value = value * 0.5 + torch.rand(()) * 0.1
            case "bounds":
                value = value + 1
            case "status":
                status = torch.zeros_like(status)
            case "changes":
                with torch.no_grad():
                    next(iter(parts.values())).value.mul_(0.5)
            case "gradient":
                value = value.detach()
            case "type":
                return value
        return Scores(value, status)

    def bounds(self, ranges: Mapping[str, Any], weights: Mapping[str, float]) -> tuple[float, float]:
        return min(low for low, _ in ranges.values()), max(high for _, high in ranges.values())


@dataclass
class Lengths:
    """Texts by their length and their number of words, with one planted `fault`."""

    fault: str = ""

    modalities: ClassVar[frozenset[str]] = frozenset({"text"})
    differentiable: ClassVar[bool] = False

    def embed(self, rollout: Rollout) -> Any:
        rows = torch.tensor([[float(len(text)), float(len(text.split()))] for text in rollout.output])
        match self.fault:
            case "batch":
                return rows - rows.mean(0)
            case "shape":
                return rows[:, 0]
            case "random":
                torch.rand(())
        return rows

    def fingerprint(self) -> Any:
        return 1 if self.fault == "fingerprint" else "lengths"


@dataclass
class Counts:
    """One key point for each word, with one planted `fault`."""

    fault: str = ""
    asked: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        return ("absent",) if self.fault == "needs" else ()

    def __call__(self, prompt: Prompt) -> Sequence[Any]:
        self.asked += 1
        if self.fault == "none":
            return []
        if self.fault == "type":
            return prompt.text.split()
        question = f"Is there a {self.asked}?" if self.fault == "other" else "Is it there?"
        return [KeyPoint("counting", question)]


class Nothing:
    """It has no member of any protocol."""


@dataclass
class Bare:
    """An encoder or a source that lacks everything."""


def texts() -> Rollout:
    return Rollout.of(["a", "b", "c"], ["one", "two words", "and three of them"])


@pytest.mark.parametrize("name", combinations.built_in())
def test_every_combination_of_ours_passes(name: str) -> None:
    check_combination(combinations.build({"name": name, **OPTIONS.get(name, {})}, "combine"))


def test_encoders_and_sources_of_ours_pass() -> None:
    sounds = Audio(torch.randn(3, 1, 8000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1), 16_000)
    check_encoder(make_encoder({"name": "spectral"}), Rollout.of(["a", "b", "c"], sounds))
    check_point_source(make_source("column"), QUESTIONS[:1])
    check_point_source(make_source("scenes"), [Prompt("a red circle"), Prompt("an oil painting")])


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("order", "another order of rows gives other values"),
        ("random", "draws from the global random numbers"),
        ("bounds", r"values leave the bounds \(0, 1\): "),
        ("status", "a value is finite exactly where its status carries one"),
        ("changes", "changes the scores that it combines"),
        ("gradient", "differentiable is True, and gradient does not pass"),
        ("type", "returns Tensor; return Scores"),
    ],
)
def test_each_fault_of_a_combination_is_told(fault: str, sentence: str) -> None:
    check_combination(Average())
    with pytest.raises(AssertionError, match=f"Average: {sentence}"):
        check_combination(Average(fault))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("batch", "an embedding depends on the rows beside it"),
        ("shape", r"embeds 3 rows as \(3,\); \(B, D\) is meant"),
        ("random", "draws from the global random numbers"),
        ("fingerprint", "the fingerprint is int; a text is meant"),
    ],
)
def test_each_fault_of_an_encoder_is_told(fault: str, sentence: str) -> None:
    check_encoder(Lengths(), texts())
    with pytest.raises(AssertionError, match=f"Lengths: {sentence}"):
        check_encoder(Lengths(fault), texts())


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("needs", "needs absent, which the prompts do not have"),
        ("type", "gives str; KeyPoint is meant"),
        ("none", "has no key point for any of the prompts"),
        ("other", "gives other key points when asked again"),
    ],
)
def test_each_fault_of_a_point_source_is_told(fault: str, sentence: str) -> None:
    check_point_source(Counts(), QUESTIONS)
    with pytest.raises(AssertionError, match=f"Counts: {sentence}"):
        check_point_source(Counts(fault), QUESTIONS)


def test_what_lacks_a_member_is_refused_by_name() -> None:
    with pytest.raises(AssertionError, match="Nothing: lacks bounds, differentiable, __call__ of Combination"):
        check_combination(Nothing())
    with pytest.raises(
        AssertionError, match="Nothing: lacks differentiable, embed, fingerprint, modalities of Encoder"
    ):
        check_encoder(Nothing(), texts())
    with pytest.raises(AssertionError, match="Nothing: lacks needs, __call__ of PointSource"):
        check_point_source(Nothing(), QUESTIONS)
    allowed, bare = ["tests.testing.test_reward_parts"], {"name": "tests.testing.test_reward_parts:Bare"}
    with pytest.raises(
        CapabilityError, match=r"encoder 'tests.*:Bare': lacks differentiable, embed, fingerprint, modal"
    ):
        make_encoder(bare, allowed)
    with pytest.raises(
        CapabilityError, match=r"points 'tests.*:Bare': lacks __call__, needs of PointSource .*add them"
    ):
        make_source(bare, allowed)
