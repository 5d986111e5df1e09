"""The checks of rewards find each planted fault, and pass what is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from mmalign import Rollout, Scores, load_reward
from mmalign.testing import check_reward, check_set_reward


def pictures(rows: int = 4) -> Rollout:
    """Different pictures (rows, 3, 8, 8)."""
    generator = torch.Generator().manual_seed(0)
    return Rollout.of([f"prompt {i}" for i in range(rows)], torch.rand(rows, 3, 8, 8, generator=generator))


@dataclass
class Mean:
    """The mean of a picture, with one planted `fault`."""

    fault: str = ""

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    differentiable: ClassVar[bool] = True

    def __call__(self, rollout: Rollout) -> Any:
        value = rollout.output.mean((1, 2, 3))
        match self.fault:
            case "batch":
                value = value - value.mean() + 0.5
            case "random":
                value = value * 0.5 + torch.rand(()) * 0.1
            case "changes":
                with torch.no_grad():
                    rollout.output.mul_(0.5)
            case "range":
                value = value + 1
            case "nan":
                value = torch.where(torch.arange(len(value)) == 1, float("nan"), value)
            case "gradient":
                value = value.detach()
            case "shape":
                value = value[:, None]
            case "type":
                return value
            case "raises":
                raise ZeroDivisionError("by zero")
        return Scores(value, torch.zeros(len(rollout.prompts), dtype=torch.int8))


def test_a_reward_without_fault_passes() -> None:
    check_reward(Mean(), pictures())
    check_reward(load_reward("sharpness"), pictures())
    check_reward(load_reward("exact_match"), text_rollout())


def text_rollout() -> Rollout:
    """Answers with the column that `exact_match` reads."""
    from mmalign import Prompt

    prompts = [Prompt(f"q{i}", meta={"answer": "4"}) for i in range(3)]
    return Rollout.of(prompts, ["<answer>4</answer>", "4", "five"])


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("batch", "a row's score depends on the rows beside it"),
        ("random", "draws from the global random numbers"),
        ("random", "scores the same rows otherwise again"),
        ("changes", "changes the outputs that it is shown"),
        ("range", r"a value leaves the range \(0\.0, 1\.0\)"),
        ("nan", "a value is finite exactly where its status is ok or parse_fail"),
        ("gradient", "differentiable is True, and gradient does not pass"),
        ("shape", r"(returns value \(4, 1\) and status \(4,\) for 4 rows|scoring raised TypeCheckError)"),
        ("type", "returns Tensor; return Scores"),
        ("raises", "scoring raised ZeroDivisionError: by zero"),
    ],
)
def test_each_fault_of_a_reward_is_found(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=f"Mean: {sentence}"):
        check_reward(Mean(fault), pictures())


def test_what_is_no_reward_and_what_judges_another_modality() -> None:
    with pytest.raises(AssertionError, match=r"object: lacks .*differentiable.* of Reward"):
        check_reward(object(), pictures())
    with pytest.raises(AssertionError, match="judges image and is tried on outputs of text"):
        check_reward(Mean(), text_rollout())


@dataclass
class Nearness:
    """Minus the squared distance of the mean pixel to 1, as a set's value, with one planted `fault`."""

    fault: str = ""

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    differentiable: ClassVar[bool] = True

    def embed(self, rollout: Rollout) -> torch.Tensor:
        value = rollout.output.mean((2, 3)).double()
        return value - value.mean(0) if self.fault == "batch" else value

    def score(self, embedding: torch.Tensor) -> torch.Tensor:
        value = -(embedding.mean(0) - 1).square().sum()
        return value + embedding[0, 0] if self.fault == "order" else value

    def credit(self, embedding: torch.Tensor) -> torch.Tensor:
        influence = 2 * ((1 - embedding.mean(0)) * (embedding - embedding.mean(0))).sum(1)
        return influence + 1 if self.fault == "credit" else influence


def test_a_set_reward_without_fault_passes() -> None:
    check_set_reward(Nearness(), pictures(6))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("batch", "an embedding depends on the rows beside it"),
        ("order", "the score depends on the order"),
        ("credit", "the influences of a set have a mean other than 0"),
    ],
)
def test_each_fault_of_a_set_reward_is_found(fault: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=f"Nearness: {sentence}"):
        check_set_reward(Nearness(fault), pictures(6))
