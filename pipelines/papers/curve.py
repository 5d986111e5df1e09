"""Over-optimisation of a learned reward model, and whether more comparisons put it off (Stiennon et al. 2020).

    python -m pipelines.papers.curve

Reward models are fitted to 50, 200 and 3,000 comparisons. GRPO without a KL follows each for 60 updates; every 15 the
truth of held-out answers is measured beside the model's own score of them.
"""

from __future__ import annotations

from mmalign.objectives.grpo import GRPO
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import Judging, fitted, scores

PAIRS, EVERY, POINTS = (50, 200, 3000), 15, 4


def measure(seed: int) -> Arms:
    """The curve of each model, and of the truth itself: where clauses are best, what they are then, and at the end."""
    held = world.rows("requests_heldout")[:128]
    prompts, asked = world.requests(), [row["prompt"] for row in held]
    arms: dict[str, dict[str, float]] = {}
    for arm in (*PAIRS, "the truth"):
        model = None if isinstance(arm, str) else fitted(world.preferences()[:arm], 80, seed)
        reward = world.Truth() if model is None else Judging(model)
        learner, curve, own = world.policy(), [], []
        for point in range(POINTS + 1):
            if point:
                objective = GRPO(reward=reward, group_size=8)
                world.tune(learner, objective, prompts, EVERY, size=8, lr=3e-4, seed=100 * seed + point)
            curve.append(world.truth(learner, 128)["clauses"])
            if model is not None and point in (0, POINTS):
                own.append(float(scores(model, asked, world.greedy(learner, asked)).mean()))
        best = max(range(len(curve)), key=curve.__getitem__)
        name = arm if isinstance(arm, str) else f"{arm} comparisons"
        arms[name] = {"peak_at": float(EVERY * best), "peak": curve[best], "start": curve[0], "end": curve[-1]}
        if model is not None:
            arms[name]["own_score_gained"] = own[-1] - own[0]
    return arms


def holds(means: Means) -> bool:
    """The model's own score rises for all; clauses peak no earlier, and end higher, the more comparisons there were."""
    few, some, many = (means[f"{count} comparisons"] for count in PAIRS)
    later = few["peak_at"] <= some["peak_at"] <= many["peak_at"] and few["peak_at"] < many["peak_at"]
    rises = min(one["own_score_gained"] for one in (few, some, many)) > 0
    return later and rises and few["end"] < few["peak"] and few["end"] < many["end"]


EXPERIMENT = Experiment(
    number=29,
    name="curve",
    claim="Followed for long, a model of few comparisons is over-optimised: truth peaks early, with more later.",
    falsified_if="the peak does not move right from 50 to 3,000 comparisons, or the truth at the end is no higher then",
    control="GRPO on the truth itself",
    measure=measure,
    holds=holds,
    caveat="Measured every 15 updates: a peak is known to that.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
