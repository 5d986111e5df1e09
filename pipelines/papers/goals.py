"""Each output is right for the score that it has: a policy that is asked for a score gives it (reward-augmented DPO).

    python -m pipelines.papers.goals

Four answers of the rewriter to each request are scored by the share of clauses that are right; the best and the worst
are a pair, which annotator `goal` turns into two rows behind words for their scores. Plain DPO learns them, and the
pairs without goals beside it.
"""

from __future__ import annotations

from typing import Any

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.types import Preference, Prompt
from mmalign.objectives.dpo import DPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

GOALS, EDGES = ["nothing nothing", "else else", "can can"], [0.6, 0.95]  # words that say nothing of a scene
STEPS, SAMPLES = 60, 4


def scored_pairs(seed: int) -> list[dict[str, Any]]:
    """The best and the worst of four answers to every request, with their scores."""
    start, rows = world.policy(train="frozen"), world.rows("requests_train")
    prompts = [row["prompt"] for row in rows]
    drawn = [world.sampled(start, prompts, seed * 10 + i) for i in range(SAMPLES)]
    made = []
    for at, row in enumerate(rows):
        scores = {texts[at]: world.clause_share(texts[at], row["request"]) for texts in drawn}
        better, worse = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
        if scores[better] > scores[worse]:
            known = {"chosen_score": scores[better], "rejected_score": scores[worse]}
            made.append({"prompt": row["prompt"], "chosen": better, "rejected": worse, **known})
    return made


def preferences(rows: list[dict[str, Any]]) -> list[Preference]:
    """Rows as preferences."""
    return [Preference(Prompt(row["prompt"]), row["chosen"], row["rejected"]) for row in rows]


def share(learner: Any, goal: str = "") -> float:
    """The mean share of right clauses in greedy answers to held-out requests behind a goal."""
    rows = world.rows("requests_heldout")
    texts = world.greedy(learner, [f"{goal} {row['prompt']}".strip() for row in rows])
    return sum(world.clause_share(text, row["request"]) for text, row in zip(texts, rows, strict=True)) / len(rows)


def measure(seed: int) -> Arms:
    """The share of right clauses by goal, and of plain DPO; goals dealt out at random beside them."""
    pairs = scored_pairs(seed)
    annotate = annotators.build({"name": "goal", "goals": GOALS, "edges": EDGES}, "goal")
    augmented = [
        made
        for result in annotate([Row.of(row) for row in pairs])
        if not isinstance(result, Skipped)
        for made in result
    ]
    mixed = [row | {"prompt": f"{GOALS[at % 3]} {row['prompt'].split(' ', 2)[2]}"} for at, row in enumerate(augmented)]
    arms: dict[str, dict[str, float]] = {}
    for arm, rows in (("goals", augmented), ("goals at random", mixed)):
        learner = world.policy()
        world.tune(learner, DPO(beta=0.1), preferences(rows), STEPS, seed=seed)
        for name, goal in zip(("low", "middle", "high"), GOALS, strict=True):
            arms[f"{arm}, {name}"] = {"clauses": share(learner, goal)}
    learner = world.policy()
    world.tune(learner, DPO(beta=0.1), preferences(pairs), STEPS, seed=seed)
    arms["plain dpo"] = {"clauses": share(learner)}
    arms["start"] = {"clauses": share(world.policy(train="frozen"))}
    return arms


def holds(means: Means) -> bool:
    """The share rises with the goal, and at the highest is 0.05 above plain DPO."""
    low, middle, high = (means[f"goals, {name}"]["clauses"] for name in ("low", "middle", "high"))
    return low < middle < high and high >= means["plain dpo"]["clauses"] + 0.05


EXPERIMENT = Experiment(
    number=42,
    name="goals",
    claim="The share of right clauses rises with the goal that is asked for, and the highest goal beats plain DPO.",
    falsified_if="the share does not rise from low to middle to high, or high is not 0.05 above plain DPO",
    control="the same rows with goals dealt out at random",
    measure=measure,
    holds=holds,
    caveat="The rewriter has no words to spare: goals are polite words that say nothing of a scene.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
