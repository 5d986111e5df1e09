"""A contrastive term beside Bradley-Terry's loss, where comparisons are few (SimCSE, Secrets of RLHF II).

    python -m pipelines.papers.twins

Reward models on the rewriter are fitted to 300 comparisons in 60 steps: plainly, with the term of twins on the features
of outputs or on the differences between both sides, and with another row's twin as the positive. Measured on held-out
comparisons: pair accuracy and best of four, and how evenly features of the right captions are spread (uniformity).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmalign.adapters import load_adapter
from mmalign.evaluation.geometry import uniformity
from mmalign.objectives._contrast import contrastive, cosine
from mmalign.objectives._tied import Facts
from mmalign.objectives._twins import Twins, masks
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import Judging, accuracy
from pipelines.papers.dimensions import features

ROWS, STEPS, WEIGHT = 300, 60, 0.1


@dataclass
class OthersTwins(Twins):
    """The same term with the twin of the next row as the positive."""

    def losses(self, vectors: torch.Tensor, facts: Facts) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of every row."""
        drawn = [masks(facts["twins"], vectors.shape[1:], self.dropout, which) for which in (0, 1)]
        one, two = ((vectors * mask.to(vectors)).flatten(0, 1) for mask in drawn)
        counts = (facts["weight"] != 0).repeat_interleave(vectors.shape[1])
        other = torch.eye(len(one), dtype=torch.bool).roll(vectors.shape[1], 1)
        value = contrastive(cosine(one, two), other, other | counts[None], self.temperature)
        value = value.view(len(vectors), -1).mean(1)
        return value, {"contrast/twins": value}


def fitted(twins: Twins | None, seed: int) -> Scorer:
    """A reward model on the rewriter, with the term or without."""
    torch.manual_seed(seed)
    adapter = load_adapter(name="reward_model", model=world.MODEL, train="full", chat=False, device="cpu")
    model = Scorer(adapter)
    world.tune(model, BradleyTerry(centre=0.01, twins=twins), world.preferences(count=ROWS), STEPS, lr=1e-3, seed=seed)
    return model


def measure(seed: int) -> Arms:
    """Accuracy, best of four and uniformity of each model."""
    held, arms = world.preferences("comparisons_heldout"), {}
    kinds = {
        "without": None,
        "twins of outputs": Twins(weight=WEIGHT),
        "twins of differences": Twins(weight=WEIGHT, of="difference"),
        "twins of other rows": OthersTwins(weight=WEIGHT),
    }
    for arm, twins in kinds.items():
        model = fitted(twins, seed)
        arms[arm] = {
            "accuracy": accuracy(model, held),
            "best_of_4": world.best_of_4(Judging(model)),
            "uniformity": uniformity(features(model, held, "chosen")),
        }
    return arms


def holds(means: Means) -> bool:
    """Twins of outputs judge better by 0.02 than without and than the twins of other rows."""
    best = {arm: one["best_of_4"] for arm, one in means.items()}
    return best["twins of outputs"] >= 0.02 + max(best["without"], best["twins of other rows"])


EXPERIMENT = Experiment(
    number=3,
    name="twins",
    claim="With few comparisons a contrastive term on the features makes a reward model judge near misses better.",
    falsified_if="best of four is less than 0.02 above that without the term, or that with other rows' twins",
    control="the same term with the twin of another row as the positive",
    measure=measure,
    holds=holds,
    caveat="Features are masked behind the network, and not inside of it; one weight, temperature and share of masks.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
