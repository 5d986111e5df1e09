"""A teacher beyond two experts is followed token by token (AlignDistil).

    python -m pipelines.papers.distill

The experts are the rewriter after 25 steps of DPO on comparisons, and on the same comparisons turned round. From the
start the policy follows the teacher beyond them for 25 updates; DPO itself goes on to as many.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmalign.core.types import Prompt
from mmalign.objectives import objectives
from mmalign.objectives.dpo import DPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

STEPS = 25


def measure(seed: int) -> Arms:
    """Clauses, truth and pair accuracy of DPO and of teachers that reach differently far."""
    pairs, held = world.preferences("comparisons_train"), world.preferences("comparisons_heldout")
    turned = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
    start = world.policy(train="frozen")
    arms: dict[str, dict[str, float]] = {}

    def measured(learner: Any) -> dict[str, float]:
        return {**world.truth(learner), "accuracy": world.pair_accuracy(learner, start, held)}

    with TemporaryDirectory() as folder:
        experts = {}
        for name, data in (("better", pairs), ("worse", turned)):
            learner = world.policy()
            world.tune(learner, DPO(beta=0.1), data, STEPS, seed=seed)
            experts[name] = world.saved(learner, Path(folder) / name)
            if name == "better":
                arms[f"dpo, {STEPS} updates"] = measured(learner)
                world.tune(learner, DPO(beta=0.1), data, STEPS, seed=seed + 100)
                arms[f"dpo, {2 * STEPS} updates"] = measured(learner)
        prompts = [Prompt(row["prompt"]) for row in world.rows("requests_train")]
        for reach in (0.0, 15.0, 150.0):
            learner = world.policy()
            spec = {"name": "distill", **experts, "reach": reach, "rows": 64}
            world.tune(learner, objectives.build(spec, "objective"), prompts, STEPS, lr=3e-4, seed=seed)
            arms[f"distilled, reach {reach:g}"] = measured(learner)
    return {"start": measured(start), **arms}


def holds(means: Means) -> bool:
    """At the paper's reach clauses are at least DPO's of as many updates in all, and ten times the reach is worse."""
    clauses = {arm: one["clauses"] for arm, one in means.items()}
    own = clauses["distilled, reach 15"]
    return own >= clauses[f"dpo, {2 * STEPS} updates"] and clauses["distilled, reach 150"] < own


EXPERIMENT = Experiment(
    number=19,
    name="distill",
    claim="Distilled from two experts the policy says as much that is right as DPO, and ten times the reach is worse.",
    falsified_if="the share of right clauses is below that of DPO at 50 updates, or not lower at ten times the reach",
    control="reach 0, which distils the better expert alone, and ten times the paper's reach",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
