"""What a subclass owes its base: one that lacks a member cannot be built, and is told which."""

from __future__ import annotations

from typing import Any

import pytest

from mmalign.objectives._pairs import PreferenceObjective
from mmalign.policies._diffusion import Diffusion
from mmalign.policies._steps import StepRule
from tests.toys import ToyLatent

OWED: dict[type, tuple[set[str], dict[str, Any]]] = {
    StepRule: ({"noisy", "plain"}, {"levels": ToyLatent().schedule(3)}),
    Diffusion: ({"draws_noise", "rule_over"}, {"adapter": ToyLatent()}),
    PreferenceObjective: ({"preference"}, {}),
}


@pytest.mark.parametrize("base", OWED)
def test_a_subclass_that_lacks_a_member_cannot_be_built(base: Any) -> None:
    names, options = OWED[base]
    for lacking in names:
        present = {name: property(lambda self: False) for name in names - {lacking}}
        kind = type("Partial", (base,), {**present, "name": "partial", "predictions": ("flow",), "other": "ddpm"})
        with pytest.raises(TypeError, match=rf"abstract method '?{lacking}"):
            kind(**options)
    whole: Any = type("Whole", (base,), dict.fromkeys(names, property(lambda self: False)) | {"name": "whole"})
    whole.predictions, whole.other = ("flow",), "ddpm"
    whole(**options)  # with all of them it can
