"""Two models find the tokens that make a caption wrong, and DPO that weighs them leaves the others alone (cDPO).

    python -m pipelines.papers.critical_tokens

Chosen and rejected captions differ in one attribute, count or relation, so the critical tokens are known. One copy of
the rewriter imitates the chosen, one the rejected captions; their estimate is held against the edited words, and DPO
with and without it learns the same 200 comparisons.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmalign.core.experience import Pairs
from mmalign.core.rng import stream
from mmalign.objectives import objectives
from mmalign.objectives._credit import CreditReaders
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

STEPS, PAIRS, BETA = 60, 200, 0.1


class Shuffled:
    """Credit whose entries are dealt out anew among the tokens of each text."""

    def __init__(self, readers: CreditReaders, seed: int) -> None:
        self.readers, self.rng = readers, stream(seed, "shuffled")

    def weighed(self, pairs: Pairs) -> Pairs:
        """The pairs with credit at the wrong places."""
        honest = self.readers.weighed(pairs)
        assert honest.credit_rejected is not None and honest.rejected.mask is not None
        credit = honest.credit_rejected.clone()
        for row, mask in zip(credit, honest.rejected.mask, strict=True):
            places = mask.nonzero()[:, 0]
            row[places] = row[places[torch.randperm(len(places), generator=self.rng)]]
        return replace(honest, credit_rejected=credit)


def measure(seed: int) -> Arms:
    """AUROC of the estimate for edited words, and what DPO does with it."""
    pairs, held = world.preferences("comparisons_train"), world.preferences("comparisons_heldout")
    start = world.policy(train="frozen")
    with TemporaryDirectory() as folder:
        readers = {}
        for side in ("chosen", "rejected"):
            learner = world.policy()
            world.imitate(learner, [(p.prompt.text, getattr(p, side)) for p in pairs], 60, seed=seed)
            readers[side] = world.saved(learner, Path(folder) / side)
        credit = {"right": readers["chosen"], "wrong": readers["rejected"], "rows": 64}
        found = objectives.build({"name": "dpo", "credit": credit}, "objective").readers
        won, lost, _, wrong = world.edits(start, held)
        assert lost.mask is not None and won.mask is not None
        estimate = found.estimate(lost, {})
        arms: dict[str, dict[str, float]] = {
            "the estimate": {"auroc": world.auroc(-estimate[wrong], -estimate[lost.mask & ~wrong])}
        }
        for arm in ("dpo", "cdpo", "cdpo, shuffled"):
            objective: Any = objectives.build(
                {"name": "dpo", "beta": BETA, **({"credit": credit} if arm != "dpo" else {})}, "objective"
            )
            if arm == "cdpo, shuffled":
                objective.readers = Shuffled(objective.readers, seed)
            learner = world.policy()
            world.tune(learner, objective, pairs[:PAIRS], STEPS, seed=seed)
            kept = lost.mask & ~wrong
            arms[arm] = {
                "accuracy": world.pair_accuracy(learner, start, held),
                "drift": world.drift(learner, start, lost, kept),
            }
    return arms


def holds(means: Means) -> bool:
    """The edited words are found; accuracy is kept, and the drift elsewhere halved."""
    dpo, cdpo = means["dpo"], means["cdpo"]
    kept = cdpo["accuracy"] >= dpo["accuracy"] - 0.01 and cdpo["drift"] <= dpo["drift"] / 2
    return means["the estimate"]["auroc"] >= 0.9 and kept


EXPERIMENT = Experiment(
    number=5,
    name="critical_tokens",
    claim="The estimate finds the edited words, and DPO weighed by it is as accurate with half the drift elsewhere.",
    falsified_if="AUROC below 0.9, held-out accuracy below DPO's by over 0.01, or over half of DPO's KL on other words",
    control="the same credit shuffled among the tokens of each text",
    measure=measure,
    holds=holds,
    caveat="With an equal learning rate credit below 1 is a smaller step, too; the shuffled arm has steps as small.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
