"""Rewards that compare an output with its prompt have nothing to compare it with where the prompt is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mmalign.core.types import Prompt, Scores, Status

WHY = "the prompt is empty"


def is_empty(prompt: Prompt) -> bool:
    """Does it say nothing?"""
    return not prompt.text.strip()


def without_unasked(scores: Scores, prompts: Sequence[Prompt]) -> Scores:
    """Scores of B rows, those whose prompt is empty or blank NOT_APPLICABLE; gradient of the others is untouched."""
    empty = [is_empty(prompt) for prompt in prompts]
    if not any(empty):
        return scores
    gone = torch.tensor(empty, device=scores.status.device) & (scores.status == int(Status.OK))
    said = zip(scores.info or [""] * len(scores), gone.tolist(), strict=True)
    return replace(
        scores,
        value=scores.value.masked_fill(gone, float("nan")),
        status=scores.status.masked_fill(gone, int(Status.NOT_APPLICABLE)),
        info=[WHY if none else info for info, none in said],
    )
