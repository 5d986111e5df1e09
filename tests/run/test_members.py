"""A component that lacks a member of its protocol is refused by name, whatever kind it is of, before anything loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmalign import Preference, Prompt
from mmalign.core.config import draft
from mmalign.core.errors import CapabilityError, DataError
from mmalign.run.build import examine
from mmalign.run.registries import REGISTRIES

RunFile = Callable[..., Path]
BARE = "{name: 'tests.run.test_members:Bare'}"


@dataclass
class Bare:
    """Nothing that a run uses."""


@dataclass
class Half:
    """A data source that holds nothing out."""

    def training_items(self) -> list[Prompt]:
        return [Prompt("a red circle")]


@dataclass
class Compared:
    """A data source of preferences, in a plain list."""

    def training_items(self) -> list[Preference]:
        return [Preference(Prompt("say something"), "yes", "no")]

    def held_out_items(self) -> list[Preference]:
        return []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            f"adapter={BARE}",
            r"adapter 'tests.*': lacks .*load.* of LatentAdapter \(mmalign\.core\.protocols\.adapters\); add them",
        ),
        (f"policy={BARE}", r"policy 'tests.*': lacks generate, modality, reference, sample of Policy"),
        (f"objective={BARE}", r"objective 'tests.*': lacks collect, loss, needs, weigh of Objective"),
        (f"rewards.own={BARE}", r"rewards\.own 'tests.*': lacks __call__, differentiable, modalities, range of Reward"),
        (f"evaluation.judges.own={BARE}", r"evaluation\.judges\.own 'tests.*': lacks __call__, .* of Reward"),
        (f"combine={BARE}", r"combine 'tests.*': lacks __call__, bounds, differentiable of Combination .*add them"),
        (f"data={BARE}", r"data 'tests.*': lacks held_out_items, training_items of DataSource"),
        ("data={name: 'tests.run.test_members:Half'}", r"data 'tests.*': lacks held_out_items of DataSource .*add it"),
    ],
)
def test_what_is_missing_is_named(run_file: RunFile, change: str, sentence: str) -> None:
    with pytest.raises(CapabilityError, match=sentence):
        examine(draft(run_file(), [change]), allow=["tests.run"])


@pytest.mark.parametrize("kind", ["adapters", "policies", "objectives", "combinations", "data"])
def test_every_class_of_ours_has_all_its_methods(kind: str) -> None:
    from mmalign.core.capabilities import methods
    from mmalign.run.members import PROTOCOLS

    for name in REGISTRIES[kind].built_in():
        component = REGISTRIES[kind].get(name)
        absent = [[m for m in methods(each) if not hasattr(component, m)] for each in PROTOCOLS[kind]]
        assert [] in absent, f"{name}: {absent}"


def test_preferences_in_a_plain_list_are_preferences(run_file: RunFile) -> None:
    changes: list[Any] = ["data={name: 'tests.run.test_members:Compared'}"]
    with pytest.raises(DataError, match=r"data: holds preferences, but objective 'grpo' reads prompts"):
        examine(draft(run_file(), changes), allow=["tests.run"])
