"""Checks of constructor options; each raises a ValueError that says what was found and what would do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from mmalign.core.errors import did_you_mean

# What other programs call the options of policies of latents.
ALSO_CALLED = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "eval_num_steps": "eval_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sde_type": "sde",
    "sde_window_size": "window_size",
    "sde_window_range": "window_range",
}


def one_of(name: str, value: Any, literal: Any) -> None:
    """`value` must be a member of the Literal type."""
    known = [str(v) for v in get_args(literal)]
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}.{did_you_mean(str(value), known)}")


def at_least(name: str, value: int | None, least: int) -> None:
    """`value` must be None or ≥ `least`."""
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}.")


def within(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    """`value` must be None or in [low, high]."""
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie in [{low:g}, {high:g}].")


def predicts(policy: str, adapter: Any, kinds: Collection[str], instead: str) -> None:
    """The adapter must predict one of `kinds`; None (an adapter whose own options are wrong) passes."""
    makes_latents(policy, adapter)
    if adapter is not None and adapter.prediction not in kinds:
        raise ValueError(
            f"policy '{policy}' needs an adapter that predicts {' or '.join(kinds)}, and this one "
            f"({type(adapter).__name__}) predicts {adapter.prediction}; use policy '{instead}'."
        )


POLICIES = {"latents": "'flow' or 'ddpm'", "tokens": "'tokens'", "scores": "'scorer'"}  # by what an adapter makes


def makes_latents(policy: str, adapter: Any) -> None:
    """The adapter must be a `LatentAdapter`; None (an adapter whose own options are wrong) passes."""
    _makes("latents", policy, adapter)


def makes_tokens(policy: str, adapter: Any) -> None:
    """The adapter must be a `TokenAdapter`; None (an adapter whose own options are wrong) passes."""
    _makes("tokens", policy, adapter)


def makes_scores(policy: str, adapter: Any) -> None:
    """The adapter must be a `ScoreAdapter`; None (an adapter whose own options are wrong) passes."""
    _makes("scores", policy, adapter)


def _makes(wanted: str, policy: str, adapter: Any) -> None:
    kind = type(adapter)
    found = "tokens" if hasattr(kind, "begin") else "scores" if hasattr(kind, "score") else "latents"
    if adapter is not None and found != wanted:
        raise ValueError(
            f"policy '{policy}' needs an adapter that makes {wanted}, and this one ({kind.__name__}) makes {found}; "
            f"use policy {POLICIES[found]}."
        )
