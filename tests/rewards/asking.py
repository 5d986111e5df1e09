"""Texts with the facts of their prompts, as rollouts, and what a reward says of them."""

import torch

from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward


def rollout_of(*rows, group=None):
    """Rows of (output, meta)."""
    numbers = torch.arange(len(rows)) if group is None else torch.tensor(group)
    return Rollout(
        [Prompt(f"question {i}", meta=meta) for i, (_, meta) in enumerate(rows)], [r[0] for r in rows], numbers
    )


def scored(name, *rows, group=None, **options):
    """Scores of rows through everything a run puts around a reward."""
    return Guarded(name, load_reward(name, **options), failed_share=1.0)(rollout_of(*rows, group=group))


def one(name, output, meta=None, **options):
    """Value and status of a single answer."""
    scores = scored(name, (output, meta or {}), **options)
    return scores.value.item(), Status(int(scores.status[0]))
