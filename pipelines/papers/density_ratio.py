"""Two checkpoints are a reward (CDR): the wider the gap between strong and weak, the better it judges near misses.

    python -m pipelines.papers.density_ratio

The weak model is the embedded rewriter, the strong one the same after 15, 30 and 60 steps of imitation of canonical
captions. Measured: how often the ratio likes the right one of four held-out captions best, which differ in one word.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards import load_reward
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

STEPS = (15, 30, 60)


def measure(seed: int) -> Arms:
    """Best of 4 by every gap, by the strong model alone, the wrong way round, and behind others' prompts."""
    demonstrations = [(row["prompt"], row["request"]) for row in world.rows("requests_train")]
    arms: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        learner, before = world.policy(), 0
        for steps in STEPS:
            world.imitate(learner, demonstrations, steps - before, seed=seed)
            before = steps
            strong = world.saved(learner, Path(folder) / str(steps))
            ratio = load_reward("density_ratio", strong=strong, weak=world.MODEL, rows=128)
            arms[f"ratio, {steps} steps"] = {"best_of_4": world.best_of_4(ratio)}
            arms[f"strong alone, {steps} steps"] = {
                "best_of_4": world.best_of_4(lambda r, ratio=ratio: _part(ratio, r))
            }
        back = load_reward("density_ratio", strong=world.MODEL, weak=strong, rows=128)
        arms["the wrong way round"] = {"best_of_4": world.best_of_4(back)}
        arms["behind another's prompt"] = {"best_of_4": world.best_of_4(lambda r: ratio(_shifted(r)))}
    return arms


def _part(ratio: object, rollout: Rollout) -> Scores:
    return Scores.of(ratio(rollout).parts["strong"])  # type: ignore[operator]


def _shifted(rollout: Rollout) -> Rollout:
    prompts: list[Prompt] = rollout.prompts
    return Rollout.of([*prompts[4:], *prompts[:4]], rollout.output)


def holds(means: Means) -> bool:
    """Best of 4 grows with the gap, and at the widest is above the strong model alone and above chance."""
    values = [means[f"ratio, {steps} steps"]["best_of_4"] for steps in STEPS]
    rising = values[0] < values[1] < values[2]
    last = STEPS[-1]
    return rising and values[-1] > means[f"strong alone, {last} steps"]["best_of_4"] and values[-1] > 0.25


EXPERIMENT = Experiment(
    number=24,
    name="density_ratio",
    claim="The density ratio judges better the wider the gap between its two models, and better than the strong alone.",
    falsified_if="best of 4 does not rise from 15 to 30 to 60 steps, or at 60 is not above the strong model alone",
    control="the ratio the wrong way round, and the ratio behind another row's prompt",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
