"""Rewards behind log σ(v - reference) against their raw sum: which picks what is good in both (Wang et al. 2024)?

    python -m pipelines.papers.conjunction

Of 16 answers of the rewriter to each of 64 held-out requests the best is picked by two rewards: the share of right
clauses, and closeness in length to a caption of seven words, in words, whose unit is much larger. References are the
0.85 quantile of 16 other answers to the same request. Measured: how often the pick is at least at both references.
"""

from __future__ import annotations

import torch
from scipy.stats import rankdata

from mmalign.core.types import Rollout
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, DRAWS, QUANTILE, WORDS = 64, 16, 0.85, 7


def both(texts: list[str], rows: list[dict[str, str]]) -> torch.Tensor:
    """The two rewards of every answer, (R, D, 2)."""
    prompts = [prompt for prompt in world.requests("requests_heldout", len(rows)) for _ in range(DRAWS)]
    meaning = world.Truth()(Rollout.of(prompts, texts)).value
    length = torch.tensor([-abs(len(text.split()) - WORDS) for text in texts], dtype=torch.float32)
    return torch.stack([meaning, length], -1).view(len(rows), DRAWS, 2)


def measure(seed: int) -> Arms:
    """How often the pick reaches both references, and what it scores, by combination."""
    start, rows = world.policy(train="frozen"), world.rows("requests_heldout")[:ROWS]
    asked = [row["prompt"] for row in rows for _ in range(DRAWS)]
    base, drawn = (both(world.sampled(start, asked, 10 * seed + part), rows) for part in (1, 2))
    reference = base.quantile(QUANTILE, dim=1, keepdim=True)
    spread = base.std((0, 1))
    ranks = torch.from_numpy(rankdata(drawn.numpy(), axis=1))
    sigmoid = torch.nn.functional.logsigmoid
    picks = {
        "raw sum": drawn.sum(-1),
        "log sigmoid": sigmoid((drawn - reference) / spread).sum(-1),
        "log sigmoid, one reference": sigmoid((drawn - base.flatten(0, 1).quantile(QUANTILE, 0)) / spread).sum(-1),
        "ranks": ranks.sum(-1),
        "minimum": ((drawn - reference) / spread).amin(-1),
    }
    arms = {}
    for arm, value in picks.items():
        best = drawn[torch.arange(len(rows)), value.argmax(1)]
        reached = (best >= reference[:, 0]).all(-1).float().mean()
        arms[arm] = {"both": float(reached), "clauses": float(best[:, 0].mean()), "length": float(best[:, 1].mean())}
    return arms


def holds(means: Means) -> bool:
    """Behind log σ with the prompt's references more picks are good in both than by the raw sum."""
    return means["log sigmoid"]["both"] > means["raw sum"]["both"]


EXPERIMENT = Experiment(
    number=14,
    name="conjunction",
    claim="Behind log sigmoid with a prompt's own references the best answer is good in both rewards more often.",
    falsified_if="the share of picks at both references is not above that of the raw sum",
    control="one reference for all prompts, the sum of ranks, and the minimum",
    measure=measure,
    holds=holds,
    caveat="Answers are picked, no policy learns; both rewards are divided by their spread, which the paper's log-odds "
    "do not need.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
