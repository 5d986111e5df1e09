"""The density ratio of two models that are far apart: one of right captions, one of wrong ones (CDR).

    python -m pipelines.papers.wide_gap

Beside `density_ratio`, whose strong model is hardly better than its weak one. Here the strong one imitated the chosen
captions of comparisons for 60 steps, and the weak one the rejected captions for 0, 15, 30 and 60.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmalign.core.types import Scores
from mmalign.rewards import load_reward
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

STEPS, ROWS = (0, 15, 30, 60), 128


def measure(seed: int) -> Arms:
    """Best of 4 by the ratio over ever worse weak models, by the strong one alone, and the wrong way round."""
    pairs = world.preferences("comparisons_train")
    arms: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        learner = world.policy()
        world.imitate(learner, [(p.prompt.text, p.chosen) for p in pairs], 60, seed=seed)
        strong = world.saved(learner, Path(folder) / "strong")
        weak, before = world.policy(), 0
        for steps in STEPS:
            world.imitate(weak, [(p.prompt.text, p.rejected) for p in pairs], steps - before, seed=seed)
            before = steps
            place = world.saved(weak, Path(folder) / f"weak{steps}")
            ratio: Any = load_reward("density_ratio", strong=strong, weak=place, rows=128)
            arms[f"weak after {steps} steps"] = {"best_of_4": world.best_of_4(ratio, ROWS)}
        alone = world.best_of_4(lambda rollout: Scores.of(ratio(rollout).parts["strong"]), ROWS)
        arms["strong alone"] = {"best_of_4": alone}
        back = load_reward("density_ratio", strong=place, weak=strong, rows=128)
        arms["the wrong way round"] = {"best_of_4": world.best_of_4(back, ROWS)}
    return arms


def holds(means: Means) -> bool:
    """Best of 4 rises with the gap and ends above the strong model alone."""
    values = [means[f"weak after {steps} steps"]["best_of_4"] for steps in STEPS]
    return values == sorted(set(values)) and values[-1] > means["strong alone"]["best_of_4"]


EXPERIMENT = Experiment(
    number=24,
    name="wide_gap",
    claim="Over a weak model that learned what is wrong the ratio judges better the worse it is, and beats the strong.",
    falsified_if="best of 4 does not rise from 0 to 15 to 30 to 60 steps, or at 60 is not above the strong model alone",
    control="the ratio the wrong way round",
    measure=measure,
    holds=holds,
    caveat="Devised after `density_ratio` had not held.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
