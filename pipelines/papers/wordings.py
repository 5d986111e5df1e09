"""A reward averaged over wordings of the request depends less on how it was put (RewardFusion).

    python -m pipelines.papers.wordings

A reward model is fitted to 3,000 comparisons. Six everyday wordings of each held-out request are scored with its right
caption and with a near miss: by each wording alone, and averaged over the five others, as reward `marginal` does over
what annotator `paraphrase` writes. C_ins sets the request against a wording of the near miss.
"""

from __future__ import annotations

import numpy as np
import torch

from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.language import parse
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted, scores

STEPS, WORDINGS = 80, 6


def wordings(caption: str, rng: np.random.Generator) -> list[str]:
    """Ways to ask for a caption, all of which say exactly it."""
    request = parse(caption)
    return [colloquial(request, rng) for _ in range(WORDINGS)]


def measure(seed: int) -> Arms:
    """Variance over wordings, C_res and C_ins: of single wordings, of means over others, and over another request."""
    rng, rows = np.random.default_rng([47, seed]), world.rows("comparisons_heldout")
    model = fitted(world.preferences(), STEPS, seed)
    asked = [wordings(row["chosen"], rng) for row in rows]
    near = [wordings(world.first(row["rejected"]), rng) for row in rows]

    def table(prompts: list[list[str]], texts: list[str]) -> torch.Tensor:
        flat = [prompt for each in prompts for prompt in each]
        return scores(model, flat, [text for text in texts for _ in range(WORDINGS)]).view(-1, WORDINGS)

    right = [row["chosen"] for row in rows]
    own, missed = table(asked, right), table(asked, [world.first(row["rejected"]) for row in rows])
    other = table(near, right)

    def fused(one: torch.Tensor) -> torch.Tensor:  # each wording by the mean of the five others
        return (one.sum(1, keepdim=True) - one) / (WORDINGS - 1)

    mixed = [each.roll(1, 0) for each in (own, missed, other)]
    arms: dict[str, dict[str, float]] = {}
    for arm, (good, bad, elsewhere) in {
        "each wording": (own, missed, other),
        "mean over the others": (fused(own), fused(missed), fused(other)),
        "mean over another request's": (fused(mixed[0]), fused(missed), fused(other)),
    }.items():
        arms[arm] = {
            "variance": float(good.var(1).mean()),
            "mean": float(good.mean()),
            "c_res": float((good > bad).float().mean()),
            "c_ins": float((good > elsewhere).float().mean()),
        }
    return arms


def holds(means: Means) -> bool:
    """The variance falls to a third, the mean stays, and both consistencies are no lower."""
    one, mean = means["each wording"], means["mean over the others"]
    same = abs(mean["mean"] - one["mean"]) < 1e-3 and mean["variance"] <= one["variance"] / 3
    return same and mean["c_res"] >= one["c_res"] and mean["c_ins"] >= one["c_ins"]


EXPERIMENT = Experiment(
    number=11,
    name="wordings",
    claim="The mean over five wordings varies a third as much, and tells near misses and near requests no worse.",
    falsified_if="the variance over wordings is above a third of a single one's, or C_res or C_ins is lower",
    control="the mean over the wordings of another request",
    measure=measure,
    holds=holds,
    caveat="Means over overlapping sets of five vary by 1/25 of a single wording's variance, whatever the model: the "
    "consistencies are the evidence.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
