"""Rubrics of which a third are of another request, and the filter that leaves out those which contradict their label.

    python -m pipelines.papers.rubrics

A rubric is what the preferred caption says, clause by clause; three in ten are replaced by that of another row.
Annotator `rubrics` keeps a row where judging by its rubric prefers what was preferred. Measured: the share that stays,
and how often judging by a row's rubric is right about another pair of its request, where a tie counts one half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from mmalign.miniworld.grammar import hard_negatives
from mmalign.miniworld.language import parse
from mmalign.miniworld.questions import questions_of
from mmalign.rewards import rule
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, NOISE = 1000, 0.3


@rule(modalities={"text"}, range=(0.0, 1.0))
def exact_judge(output: str, criteria: list[dict[str, Any]]) -> float:
    """The share of criteria that a caption meets: whether it says the clause that each asks about."""
    clauses = {question.text for question in questions_of(parse(output))}
    return sum(criterion["text"] in clauses for criterion in criteria) / len(criteria)


def rubric_of(caption: str) -> list[dict[str, Any]]:
    """A criterion for each clause of a caption."""
    return [{"text": question.text} for question in questions_of(parse(caption))]


def kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose rubric reproduces their label."""
    filtering = annotators.build({"name": "rubrics", "source": "column"}, "rubrics")
    judge: Any = exact_judge
    filtering.reward = judge()
    return [made[0] for made in filtering([Row.of(row) for row in rows]) if not isinstance(made, Skipped)]


def accuracy(rows: list[dict[str, Any]]) -> float:
    """How often judging by a row's rubric prefers its caption to a near miss that the rubric was not filtered by."""
    judge: Any = exact_judge

    def share(row: dict[str, Any], side: str) -> float:
        return float(judge.judge(row[side], row["criteria"]))

    gaps = np.array([share(row, "chosen") - share(row, "other") for row in rows])
    return float((np.sign(gaps) / 2 + 0.5).mean())


def measure(seed: int) -> Arms:
    """The share of rows that stay, and the accuracy of their rubrics on the other pair."""
    rng, chance = stream(seed, "rubrics"), np.random.default_rng([15, seed])
    rows = []
    for row in world.rows("comparisons_train")[seed * ROWS : (seed + 1) * ROWS]:
        near = [other.text for other in hard_negatives(parse(row["chosen"]), 2, chance)]
        other = next(text for text in near if text != row["rejected"])
        rows.append(row | {"other": other, "criteria": rubric_of(row["chosen"])})
    moved = torch.randperm(ROWS, generator=rng).tolist()
    foreign = [row | {"criteria": rows[place]["criteria"]} for row, place in zip(rows, moved, strict=True)]
    replaced = (torch.rand(ROWS, generator=rng) < NOISE).tolist()
    noisy = [one if bad else own for one, own, bad in zip(foreign, rows, replaced, strict=True)]
    arms = {}
    for arm, data in {"clean": rows, "noisy": noisy, "filtered": kept(noisy), "of others": foreign}.items():
        arms[arm] = {"accuracy": accuracy(data), "share": len(data) / ROWS}
    passing, wrong = len(kept(foreign)) / ROWS, sum(replaced) / ROWS
    arms["of others"] |= {"passing": passing}
    arms["filtered"] |= {"expected": 1 - wrong + wrong * passing}
    return arms


def holds(means: Means) -> bool:
    """The filter keeps the share that it should, and the rubrics that it keeps are nearly as good as clean ones."""
    filtered, clean, noisy = (means[arm]["accuracy"] for arm in ("filtered", "clean", "noisy"))
    share = abs(means["filtered"]["share"] - means["filtered"]["expected"]) <= 0.03
    return share and filtered >= clean - 0.02 and noisy <= clean - 0.05


EXPERIMENT = Experiment(
    number=15,
    name="rubrics",
    claim="Rubrics that reproduce their own label are nearly as good on another pair as if none had been replaced.",
    falsified_if="the share that stays is over 0.03 from what it should be, the filtered rubrics are over 0.02 less "
    "accurate than clean ones, or the unfiltered ones less than 0.05",
    control="the same rubrics without the filter, and rubrics of other requests alone",
    measure=measure,
    holds=holds,
    caveat="The judge is exact, and rubrics are written by a rule: only the filter is tried, not a model that writes.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
