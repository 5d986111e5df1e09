"""Is the bonus for a behaviour given where it helps, and taken where it hurts (GCPO)?

    python -m pipelines.papers.behaviour

After 20 steps of imitation the rewriter answers 128 held-out requests sixteen times. The behaviour is to name a colour:
it helps where the request has one and hurts where it has none. Measured: how often the sign that `group_contrast` reads
off a group is right.
"""

from __future__ import annotations

import torch

from mmalign.core.rng import stream
from mmalign.miniworld.scenes import COLORS
from mmalign.rewards.functional import group_contrast
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, GROUP, STEPS = 128, 16, 20


def measure(seed: int) -> Arms:
    """How often the sign is right where a colour is asked for and where none is, and how many groups have one."""
    learner = world.policy()
    world.imitate(learner, [(r["prompt"], r["request"]) for r in world.rows("requests_train")], STEPS, seed=seed)
    rows = world.rows("requests_heldout")[:ROWS]
    said = world.sampled(learner, [row["prompt"] for row in rows for _ in range(GROUP)], seed)
    correct = torch.tensor([world.clause_share(text, rows[i // GROUP]["request"]) for i, text in enumerate(said)])
    shows = torch.tensor([any(word in COLORS for word in text.split()) for text in said])
    group = torch.arange(len(rows)).repeat_interleave(GROUP)
    asked = torch.tensor([any(word in COLORS for word in row["request"].split()) for row in rows])
    rng, arms = stream(seed, "shuffled"), {}
    shuffled = torch.cat([part[torch.randperm(GROUP, generator=rng)] for part in correct.split(GROUP)])
    for arm, values in {"group contrast": correct, "right answers dealt out anew": shuffled}.items():
        sign = group_contrast(values, shows, group)[::GROUP]
        told = sign != 0
        arms[arm] = {
            "helps": float((sign[told & asked] > 0).float().mean()),
            "hurts": float((sign[told & ~asked] < 0).float().mean()),
            "groups": float(told.float().mean()),
        }
    arms["always a bonus"] = {"helps": 1.0, "hurts": 0.0, "groups": 1.0}
    return arms


def holds(means: Means) -> bool:
    """The sign is right in nine of ten groups of either kind that have one."""
    own = means["group contrast"]
    return min(own["helps"], own["hurts"]) >= 0.9


EXPERIMENT = Experiment(
    number=7,
    name="behaviour",
    claim="The contrast of a group tells where naming a colour helps and where it hurts.",
    falsified_if="the sign is wrong in over one of ten groups that have one, of either kind",
    control="the answers' worth dealt out anew in each group, and a bonus everywhere",
    measure=measure,
    holds=holds,
    caveat="The sign is measured, and no policy learns by it here.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
