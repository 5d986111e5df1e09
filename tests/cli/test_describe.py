"""What `mmalign show` says of a component: source, options with values, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from mmalign.core.options import PositiveShare
from mmalign.run.component_docs import component_docs, values
from mmalign.run.registries import REGISTRIES
from tests.cli.conftest import *  # noqa: F403


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "whole number"),
        (Annotated[int, Ge(2), Lt(9)], "whole number ≥ 2 and < 9"),
        (PositiveShare | None, "number > 0 and ≤ 1 or null"),
        (Literal["a", "b"], "'a' or 'b'"),
        (tuple[float, float], "list of number"),
        (dict[str, Any], "mapping"),
        (Any, "any value"),
    ],
)
def test_a_type_in_words(kind: Any, words: str) -> None:
    assert values(kind) == words


def test_a_kind_and_a_name(call: Any) -> None:
    code, out, _ = call("show", "reward", "clip")
    assert code == 0 and out.startswith("rewards: clip\nsource: mmalign.rewards.image.clip\n")
    assert "  score: 'cosine'    ('cosine' or 'clip_score' or 'logit')\n      `cosine` in [-1, 1]" in out
    assert call("show", "rewards", "clip")[1] == out
    code, _, err = call("show", "rewardz", "clip")
    assert code == 2 and "no kind of component is called 'rewardz'. Did you mean 'reward'?" in err
    code, _, err = call("show", "reward", "clp")
    assert code == 2 and "no reward is called 'clp'" in err


@pytest.mark.parametrize("kind", sorted(REGISTRIES))
def test_every_option_of_every_component_has_a_meaning(kind: str) -> None:
    registry = REGISTRIES[kind]
    silent = []
    for name in registry.built_in():
        component = registry.get(name)
        silent += [f"{name}.{each.name}" for each in component_docs(component).options if not each.meaning]
    assert silent == []
