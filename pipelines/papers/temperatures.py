"""What the temperature of a contrastive loss does to features (Understanding the Behaviour of Contrastive Loss).

    python -m pipelines.papers.temperatures

A head on CLIP's features learns to tell every picture from all others, its positive being the same look in other shades
and a little elsewhere; pictures of the same kind (shape and colour) are negatives of each other. Measured on 200
held-out pictures, for four temperatures: the share of all negatives' weight that is on the hardest, uniformity,
tolerance (the mean cosine of one kind), and how often the nearest other picture is of the same kind.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from mmalign.core.protocols import one_alone
from mmalign.evaluation import geometry
from mmalign.objectives.contrast import Contrast
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._pictures import drawn, features, head, picture, triple

ROWS, HELD, STEPS, SIZE = 384, 200, 60, 64
TEMPERATURES = (0.05, 0.1, 0.3, 1.0)


def measure(seed: int) -> Arms:
    """The measures of every temperature, and of CLIP's head before training."""
    rng = np.random.default_rng([27, seed])
    looks = [drawn(rng) for _ in range(ROWS)]
    rows = [triple(picture(look, rng), picture(look, rng), picture(look, rng)) for look in looks]
    held = [drawn(rng) for _ in range(HELD)]
    pictures, kinds = [picture(look, rng) for look in held], np.array([look.kind for look in held])
    arms = {"untrained": measured(features(head(seed, width=32), pictures), kinds)}
    for temperature in TEMPERATURES:
        policy, objective = head(seed, width=32), Contrast(temperature=temperature, hard=0)
        world.tune(policy, objective, rows, STEPS, size=SIZE, lr=3e-3, seed=seed)
        found = measured(features(policy, pictures), kinds)
        batch = objective.collect(policy, rows[:SIZE], torch.Generator().manual_seed(seed))
        weighted = replace(batch, weight=objective.weigh(batch.mask, lambda total: total))
        tied = objective.tie_rows(policy, weighted, SIZE, one_alone, 0).tied
        arms[f"{temperature:g}"] = {**found, "hardest": float(tied.seen["contrast/hardest"].mean())}
    return arms


def measured(found: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """Uniformity, tolerance and recall of features."""
    same = (kinds[:, None] == kinds[None]) & ~np.eye(len(kinds), dtype=bool)
    rank = geometry.first_ranks(found, found, same, ~np.eye(len(kinds), dtype=bool))
    return {
        "uniformity": geometry.uniformity(found),
        "tolerance": geometry.class_tolerance(found, kinds),
        "recall@1": float((rank[~np.isnan(rank)] <= 1).mean()),
    }


def holds(means: Means) -> bool:
    """With the temperature the hardest negative's share falls, and tolerance and uniformity's value rise."""
    table = [means[f"{temperature:g}"] for temperature in TEMPERATURES]
    steps = list(pairwise(table))
    rising = all(b[name] > a[name] for a, b in steps for name in ("tolerance", "uniformity"))
    return rising and all(b["hardest"] < a["hardest"] for a, b in steps)


EXPERIMENT = Experiment(
    number=27,
    name="temperatures",
    claim="A low temperature weighs the hardest negatives and spreads features, a high one tolerates likeness.",
    falsified_if="over .05, .1, .3 and 1 the hardest negative's share does not fall, or tolerance or the value of "
    "uniformity does not rise, at every step",
    control="the head before training",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
