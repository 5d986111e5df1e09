"""Numbers that mean nothing are refused, by every numeric option of every component."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mmalign.adapters import adapters
from mmalign.adapters.weights.lora import LoRA
from mmalign.core.config import Evaluation, Trainer
from mmalign.core.registry import attempted
from mmalign.rewards import Slot, rewards
from mmalign.run.registries import REGISTRIES

# Options that may be negative, and why; everything else is a size, a share, a temperature, a weight of a penalty, …
NEGATIVE = {
    "Slot.weight": "a reward may be minimised",
    "router.otherwise": "of another reward's value",
    "group_contrast.at": "of another reward's value",
    "lagrangian.reach": "thresholds may be searched for downwards",
    "aesthetic.mean": "of the head's own scores",
    "mlp_head.mean": "of the head's own scores",
    "reward_model.mean": "of the model's own scores",
    "reward reward_model.mean": "of the model's own scores",
    "cosine_length.threshold": "of another reward's value",
    "group_length.threshold": "of another reward's value",
    "hybrid.middle": "of the model's own scores",
    "repetition.max_penalty": "a penalty is negative",
    "sql_execution.failed": "a score",
    "sql_execution.wrong": "a score",
    "tool_call.spurious": "a score",
    "gate.floor": "of another reward's value",
    "ddpm.density_mean": "below 0 it prefers data to noise",
    "flow.density_mean": "below 0 it prefers data to noise",
    "ddpm.density_mode": "below 0 it prefers both ends; its bounds hold where levels are drawn by it",
    "flow.density_mode": "below 0 it prefers both ends; its bounds hold where levels are drawn by it",
    "gate.at": "of another reward's value",
    "duration.threshold": "in dB",
    "silence.threshold": "in dB",
    "loudness.target": "in LUFS",
    "embedding_contrast.own": "below 0 outputs to one wording are pushed apart",
}
INFINITE = {"length.high": "no upper end", "vendi.order": "the order ∞ of Vendi scores"}


def options() -> Iterator[tuple[str, Any, Any]]:
    """(Class.option, class, annotation) of every option of one number."""
    kinds = {name: registry.get(name) for registry in REGISTRIES.values() for name in registry.names()}
    kinds |= {f"{registry.kind} reward_model": registry.get("reward_model") for registry in (adapters, rewards)}
    for name, kind in (kinds | {each.__name__: each for each in (Slot, Trainer, Evaluation, LoRA)}).items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for option in dataclasses.fields(kind):
            if option.init and _numeric(hints[option.name]):
                yield f"{name}.{option.name}", kind, hints[option.name]


def _numeric(hint: Any) -> bool:
    members = [hint, *typing.get_args(hint)]
    return any(member in (int, float) or typing.get_origin(member) is typing.Annotated for member in members)


ALL = list(options())


def test_there_are_many() -> None:
    names = [name for name, _, _ in ALL]
    assert len(names) > 200, len(names)
    assert not (set(NEGATIVE) | set(INFINITE)) - set(names)


def refused(kind: Any, option: str, value: Any) -> bool:
    """Is the value a fault of this option (whatever else is missing)?"""
    _, faults = attempted(kind, {option: value}, "here")
    return any(fault.startswith(f"here.{option}:") or f"{option}" in fault.partition(":")[2] for fault in faults)


@pytest.mark.parametrize(("name", "kind", "hint"), ALL, ids=[name for name, _, _ in ALL])
def test_what_means_nothing_is_refused(name: str, kind: Any, hint: Any) -> None:
    option = name.partition(".")[2]
    assert refused(kind, option, math.nan), f"{name} takes NaN"
    assert refused(kind, option, -math.inf), f"{name} takes -inf"
    assert refused(kind, option, math.inf) is (name not in INFINITE), f"{name} and inf"
    assert refused(kind, option, -3) or name in NEGATIVE, f"{name} takes -3"


@pytest.mark.parametrize(("name", "kind", "hint"), ALL, ids=[name for name, _, _ in ALL])
def test_defaults_are_within_their_own_range(name: str, kind: Any, hint: Any) -> None:
    default = next(f.default for f in dataclasses.fields(kind) if f.name == name.partition(".")[2])
    if default is not dataclasses.MISSING:
        try:
            TypeAdapter(hint).validate_python(default)
        except ValidationError as error:
            pytest.fail(f"{name} = {default}: {error}")
