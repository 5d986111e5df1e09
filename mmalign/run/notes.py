"""What a run file may say and may not have been meant: told once, before anything is loaded."""

from __future__ import annotations

from mmalign.run.build import Parts
from mmalign.run.references import newest_taken


def notes(parts: Parts) -> list[str]:
    """What is allowed and may not be what was meant."""
    mixed, objective = parts.reward, parts.objective
    sentences = [*newest_taken(parts.file), *getattr(objective, "doubts", ())]
    twice = getattr(objective, "std", "") == "group" and getattr(mixed, "relative", False)
    if twice and getattr(mixed.combination, "scale", "") == "group_z":
        sentences.append(
            "combine: scale group_z divides each reward by its deviation within the group, and objective.std: group "
            "then divides their sum by its own; std: none with whiten: true (GDPO) divides once."
        )
    if getattr(objective, "clip_unit", "") == "mean" and parts.file.trainer.max_grad_norm:
        sentences.append(
            f"trainer.max_grad_norm: {parts.file.trainer.max_grad_norm:g} is for the gradient of a whole step's "
            "log-prob; where clip_unit: mean says that numbers are a paper's, the same bound is D times its number, D "
            "the dimensions of a step (channels x height x width of the latents). grad/norm is logged."
        )
    return sentences
