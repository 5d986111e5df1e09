"""Traits of a reward: what it says of itself is read in one place, and what is misspelt or of a wrong type is said."""

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

import mmalign
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt
from mmalign.rewards import Guarded, rewards
from mmalign.rewards.engine.traits import RewardTraits, require_columns, trait_faults
from tests.rewards.doubles import Numbers, troubled


@dataclass
class Misspelt(Numbers):
    """Believed to be cached, and never is."""

    determinstic = True


@dataclass
class MisspeltOption(Numbers):
    """A trait that became an option by its annotation."""

    batch_dependant: bool = True


@dataclass
class Untyped(Numbers):
    """A text is a sequence of letters, and "no" is true."""

    needs = "answer"
    isolated = "no"
    prepare = True


@dataclass
class Renamed(Numbers):
    """Written for an earlier version."""

    whole: ClassVar[bool] = True


@dataclass
class Depends(Numbers):
    """Traits that its options decide."""

    column: str = "answer"
    needs: tuple[str, ...] = field(default_factory=tuple, init=False)

    def __post_init__(self):
        self.needs = (self.column,)


def test_a_reward_that_says_nothing_has_the_defaults():
    class Plain:
        pass

    assert RewardTraits.of(Plain()) == RewardTraits()


def test_traits_are_what_the_reward_says():
    traits = RewardTraits.of(Numbers())
    assert traits.deterministic and not traits.isolated and traits.needs == () and traits.prepare is None
    assert RewardTraits.of(troubled()).isolated and "sleep" in RewardTraits.of(troubled()).version  # of the rule
    assert RewardTraits.of(Depends(column="truth")).needs == ("truth",)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Misspelt, "'determinstic' is no trait of a reward. Did you mean 'deterministic'?"),
        (MisspeltOption, "'batch_dependant' is no trait of a reward. Did you mean 'batch_dependent'?"),
    ],
)
def test_a_misspelt_trait_is_a_fault_with_the_right_name(kind, sentence):
    for make in (lambda: Guarded("mine", kind()), lambda: mmalign.load_reward(kind)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert sentence in str(caught.value) and str(caught.value).startswith(("reward 'mine': ", f"{kind.__name__}: "))


def test_a_trait_of_the_wrong_type_is_a_fault_and_all_are_said():
    with pytest.raises(ConfigError) as caught:
        mmalign.load_reward(Untyped)
    assert caught.value.faults == [
        "Untyped: needs: 'answer'; must be a tuple of columns, as (\"answer\",).",
        "Untyped: isolated: 'no'; must be True or False.",
        "Untyped: prepare: True; must be a method.",
    ]
    with pytest.raises(ConfigError, match=r"reward 'Depends': needs: \(3,\); must be a tuple of columns"):
        RewardTraits.of(Depends(column=3))  # type: ignore[arg-type]


def test_an_old_name_of_a_trait_still_works_and_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert trait_faults(Renamed) == () and RewardTraits.of(Renamed()).batch_dependent
    assert "reward 'Renamed': its trait 'whole' is called 'batch_dependent' now; rename it." in caplog.text


@pytest.mark.parametrize("name", rewards.names())
def test_built_in_rewards_have_no_faulty_trait(name):
    reward: Any = rewards.get(name)
    assert trait_faults(reward) == ()


def test_the_rows_of_a_data_set_are_checked_with_traits_read_once():
    reads = []

    class Counted(Numbers):
        @property
        def needs(self):
            reads.append("needs")
            return ("answer",)

        def check_data(self, prompt):
            if prompt.meta["answer"] == "odd":
                raise ValueError("an odd answer")

    prompts = [Prompt("a", meta={"answer": "1"}), Prompt("b")] * 100
    require_columns({"rewards.a": Counted()}, prompts)
    assert 0 < len(reads) < 5
    with pytest.raises(DataError, match=r"row 200 \('c'\): rewards.a: an odd answer"):
        require_columns({"rewards.a": Counted()}, [*prompts, Prompt("c", meta={"answer": "odd"})])
