"""What a run file may say and may not have been meant: told once, before anything is loaded.

And what an option comes to that the checkpoint decides: told once it is loaded.
"""

from __future__ import annotations

from typing import Any

from mmalign.core.objective import ObjectiveTraits
from mmalign.core.protocols import DensityPolicy
from mmalign.policies._surrogate import named_weighting
from mmalign.rewards.engine.traits import CombinationTraits
from mmalign.rewards.judges.remote import Remote
from mmalign.run.build import Parts
from mmalign.run.references import newest_taken


def notes(parts: Parts) -> list[str]:
    """Return what is allowed and may not be what was meant."""
    mixed, objective = parts.reward, ObjectiveTraits.of(parts.objective)
    sentences = [*newest_taken(parts.file), *objective.doubts, *_elsewhere(parts)]
    twice = objective.std == "group" and mixed is not None and mixed.relative
    if twice and CombinationTraits.of(mixed.combination).scale == "group_z":
        sentences.append(
            "combine: scale group_z divides each reward by its deviation within the group, and objective.std: group "
            "then divides their sum by its own; std: none with whiten: true (GDPO) divides once."
        )
    if objective.clip_unit == "mean" and parts.file.trainer.max_grad_norm:
        sentences.append(
            f"trainer.max_grad_norm: {parts.file.trainer.max_grad_norm:g} is for the gradient of a whole step's "
            "log-prob; where clip_unit: mean says that numbers are a paper's, the same bound is D times its number, D "
            "the dimensions of a step (channels x height x width of the latents). grad/norm is logged."
        )
    return sentences


def _elsewhere(parts: Parts) -> list[str]:
    """A sentence for each reward and judge on a server: that it was asked, and what it said of itself."""
    slots = parts.reward.slots if parts.reward is not None else {}
    named = {f"rewards.{name}": slot.reward for name, slot in slots.items()}
    named |= {f"evaluation.judges.{name}": judge for name, judge in parts.judges.items()}
    return [f"{place}: {reward.described()}." for place, reward in named.items() if isinstance(reward, Remote)]


def weighting_line(parts: Parts) -> str:
    """Return which weighting of errors `plain` is for the loaded network; "" where none is used."""
    policy: Any = parts.policy
    if getattr(parts.objective, "needs", None) is not DensityPolicy or getattr(policy, "weighting", "") != "plain":
        return ""
    predicts = policy.adapter.prediction
    return (
        f"policy.weighting: plain is {named_weighting('plain', predicts)} here, where the network predicts {predicts}."
    )
