"""Reward models of the experiments: fitted to comparisons of the language world in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.adapters import load_adapter
from mmalign.core.types import Preference, Prompt, Rollout, Scores
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world


def fitted(pairs: Sequence[Preference], steps: int, seed: int, head: dict[str, Any] | None = None) -> Scorer:
    """A reward model on the rewriter, fitted to pairs; the columns `label` and `margin` are read."""
    torch.manual_seed(seed)
    options = {"head": head} if head else {}
    adapter = load_adapter(name="reward_model", model=world.MODEL, train="full", chat=False, device="cpu", **options)
    model = Scorer(adapter)
    world.tune(model, BradleyTerry(centre=0.01), pairs, steps, lr=1e-3, seed=seed)
    return model


def saved(model: Scorer, folder: Path) -> dict[str, Any]:
    """The section of a reward that reads the model from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.adapter.save(folder)
    return {"name": "reward_model", "model": str(folder), "device": "cpu", "rows": 128}


class Judging:
    """A fitted model as a reward."""

    def __init__(self, model: Scorer) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts."""
        return Scores.of(self.model.score(self.model.observe(rollout.prompts, rollout.output)))


def scores(model: Scorer, prompts: Sequence[str], texts: Sequence[str]) -> torch.Tensor:
    """The scores of texts, (N,)."""
    return world.scored(Judging(model), prompts, texts)


def accuracy(model: Scorer, pairs: Sequence[Preference]) -> float:
    """How often the chosen side scores higher; a tie is half."""
    prompts = [pair.prompt.text for pair in pairs]
    lead = scores(model, prompts, [p.chosen for p in pairs]) - scores(model, prompts, [p.rejected for p in pairs])
    return float(((lead > 0).float() + 0.5 * (lead == 0).float()).mean())


def pair_of(row: dict[str, Any]) -> Preference:
    """A row with its label and margin as a preference."""
    meta: dict[str, Any] = {name: row[name] for name in ("label", "margin") if name in row}
    return Preference(Prompt(row["prompt"], meta=meta), row["chosen"], row["rejected"])


__all__ = ["Judging", "accuracy", "fitted", "pair_of", "saved", "scores"]
