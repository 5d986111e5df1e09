"""Where two iterates of a self-reward rank alike their labels are right more often (CREAM).

    python -m pipelines.papers.agreement

The rewriter is its own judge: after 40 steps of DPO, and after 80, its log-ratio over the start ranks six of its own
answers to every request. Annotator `agreement` makes pairs of the best and the worst, labelled by Kendall's τ of both
rankings. The truth says which labels are right; DPO learns the pairs with soft and with hard labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from mmalign.core.types import Preference, Prompt
from mmalign.objectives.dpo import DPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

SAMPLES, ROWS, STEPS = 6, 200, 20


def measure(seed: int) -> Arms:
    """The share of right labels by tercile of τ, and clauses after DPO with soft, hard and shuffled labels."""
    train, asked = world.preferences("comparisons_train"), world.rows("requests_train")[:ROWS]
    learner = world.policy()
    with TemporaryDirectory() as folder:
        iterates = []
        for number in (1, 2):
            world.tune(learner, DPO(beta=0.1), train, 40, seed=seed + number)
            iterates.append(world.saved(learner, Path(folder) / str(number)))
        prompts = [row["prompt"] for row in asked]
        drawn = [world.sampled(learner, prompts, seed * 10 + i) for i in range(SAMPLES)]
        rewards = [{"name": "density_ratio", "strong": each, "weak": world.MODEL, "rows": 64} for each in iterates]
        annotate = annotators.build({"name": "agreement", "first": rewards[1], "second": rewards[0]}, "agreement")
        rows = [Row.of(row | {"outputs": [texts[at] for texts in drawn]}) for at, row in enumerate(asked)]
        made = [result[0] for result in annotate(rows) if not isinstance(result, Skipped)]
        arms = {f"labels, {name}": one for name, one in terciles(made).items()}
        for arm, pairs in labelled(made, seed).items():
            again = world.policy(iterates[1])
            world.tune(again, DPO(beta=0.1), pairs, STEPS, seed=seed)
            arms[f"dpo, {arm} labels"] = world.truth(again)
    return arms


def terciles(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How often the chosen answer has more right clauses than the rejected one, by τ; pairs that are equal are out."""
    known = []
    for row in rows:
        lead = world.clause_share(row["chosen"], row["request"]) - world.clause_share(row["rejected"], row["request"])
        if lead:
            known.append((row["agreement"], float(lead > 0)))
    known.sort()
    third = len(known) // 3
    parts = {"low τ": known[:third], "middle τ": known[third : 2 * third], "high τ": known[2 * third :]}
    return {name: {"right": sum(right for _, right in part) / max(len(part), 1)} for name, part in parts.items()}


def labelled(rows: list[dict[str, Any]], seed: int) -> dict[str, list[Preference]]:
    """The pairs with their labels, with labels of 1, and with the labels of other rows."""
    soft = [
        Preference(Prompt(row["prompt"], meta={"label": row["label"]}), row["chosen"], row["rejected"]) for row in rows
    ]
    order = torch.randperm(len(soft), generator=stream(seed, "labels")).tolist()
    shuffled = [
        replace(pair, prompt=replace(pair.prompt, meta=soft[at].prompt.meta))
        for pair, at in zip(soft, order, strict=True)
    ]
    hard = [replace(pair, prompt=replace(pair.prompt, meta={})) for pair in soft]
    return {"soft": soft, "hard": hard, "shuffled": shuffled}


def holds(means: Means) -> bool:
    """Labels are right more often the higher τ, and soft labels leave clauses no lower than hard ones."""
    low, middle, high = (means[f"labels, {name} τ"]["right"] for name in ("low", "middle", "high"))
    return low < middle < high and means["dpo, soft labels"]["clauses"] >= means["dpo, hard labels"]["clauses"]


EXPERIMENT = Experiment(
    number=22,
    name="agreement",
    claim="Self-labels are right more often where two iterates agree, and soft labels are no worse than hard ones.",
    falsified_if="the share of right labels does not rise over terciles of τ, or soft labels leave fewer right clauses",
    control="the labels of other rows",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
