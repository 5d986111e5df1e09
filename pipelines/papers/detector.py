"""A reward model scores what a tuned policy says above what its start says, and can be taught to (ReMoDetect).

    python -m pipelines.papers.detector

The tuned policy is the rewriter after 40 steps of DPO. Rows are ordered triples: its answer, one whose second half is
the start's, and the start's answer; annotator `ranks` makes pairs of them. A reward model of 3,000 comparisons detects
the tuned answers to held-out requests by its score, as it is, and after 40 further steps on the pairs.
"""

from __future__ import annotations

from typing import Any

import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.dpo import DPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted, pair_of, scores

TUNED, FITTED, FURTHER = 40, 80, 40


def triples(prompts: list[str], tuned: list[str], start: list[str]) -> list[dict[str, Any]]:
    """Pairs of ranked answers: the tuned one, one of both halves, and that of the start."""
    rows = []
    for prompt, better, worse in zip(prompts, tuned, start, strict=True):
        words, others = better.split(), worse.split()
        half = " ".join([*words[: len(words) // 2], *others[len(others) // 2 :]])
        rows.append({"prompt": prompt, "ranked": list(dict.fromkeys([better, half, worse]))})
    made = annotators.build({"name": "ranks"}, "ranks")([Row.of(row) for row in rows])
    return [row for result in made if not isinstance(result, Skipped) for row in result]


def measure(seed: int) -> Arms:
    """AUROC of tuned against start by the model as fitted, taught on triples, on turned ones, and by the truth."""
    pairs, start, learner = world.preferences(), world.policy(train="frozen"), world.policy()
    world.tune(learner, DPO(beta=0.1), pairs, TUNED, seed=seed)
    train, held = world.rows("requests_train")[:600], world.rows("requests_heldout")
    asked = [row["prompt"] for row in train]
    rows = triples(asked, world.sampled(learner, asked, seed), world.sampled(start, asked, seed + 100))
    asked = [row["prompt"] for row in held]
    ours, theirs = world.sampled(learner, asked, seed + 200), world.sampled(start, asked, seed + 300)
    turned = torch.rand(len(rows), generator=stream(seed, "turned")) < 0.5
    mixed = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if turn else row
        for row, turn in zip(rows, turned.tolist(), strict=True)
    ]
    arms: dict[str, dict[str, float]] = {}
    for arm, data in {"as fitted": None, "taught on triples": rows, "taught on turned triples": mixed}.items():
        model = fitted(pairs, FITTED, seed)
        if data is not None:
            world.tune(model, BradleyTerry(centre=0.01), [pair_of(row) for row in data], FURTHER, lr=3e-4, seed=seed)
        arms[arm] = {"auroc": world.auroc(scores(model, asked, ours), scores(model, asked, theirs))}
    known = [
        torch.tensor([world.clause_share(text, row["request"]) for text, row in zip(texts, held, strict=True)])
        for texts in (ours, theirs)
    ]
    return {**arms, "the truth": {"auroc": world.auroc(*known)}}


def holds(means: Means) -> bool:
    """Above 0.5 as fitted, higher once taught on triples, and not by turned ones."""
    auroc = {arm: one["auroc"] for arm, one in means.items()}
    taught = auroc["taught on triples"]
    return auroc["as fitted"] > 0.5 and taught > max(auroc["as fitted"], auroc["taught on turned triples"])


EXPERIMENT = Experiment(
    number=39,
    name="detector",
    claim="A reward model scores a tuned policy's answers above its start's, more so once taught on ordered triples.",
    falsified_if="AUROC is at most 0.5 as fitted, or no higher after triples than before, or than after turned ones",
    control="triples turned round at random",
    measure=measure,
    holds=holds,
    caveat="The start stands for people's answers.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
