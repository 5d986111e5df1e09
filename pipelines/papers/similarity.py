"""A reward from thirty comparisons, on features that similarity queries shaped (SIRL, on pictures; no robots).

    python -m pipelines.papers.similarity

People say which two of three pictures are alike, and mean shape and colour; place, size, height and ground are no
matter to them. Of 200 such answers a head on CLIP's features is learned by triplets. A reward is then fitted to 30
comparisons whose better picture always has its thing on the left; in the 400 pairs of the test it lies anywhere.
Measured: accuracy there, against a fit on CLIP's own features, on a head of augmented views, and of shuffled answers.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mmalign.core.types import Preference, Prompt
from mmalign.evaluation.probes import logistic
from mmalign.miniworld.scenes import COLORS, SHAPES
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.contrast import Contrast
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._pictures import Look, clip_features, drawn, features, head, picture, triple

QUERIES, COMPARISONS, TEST, STEPS = 200, 30, 400, 100
TRIPLETS = Contrast(loss_type="triplet", margin=1.0, in_batch=False)


def answers(rng: np.random.Generator) -> list[Preference]:
    """Three pictures, of which two are most alike in shape and colour."""
    made: list[Preference] = []
    while len(made) < QUERIES:
        looks = [drawn(rng) for _ in range(3)]
        if rng.random() < 0.7:  # three by chance rarely share anything
            looks[1] = drawn(rng, shape=looks[0].shape, color=looks[0].color if rng.random() < 0.5 else looks[1].color)
        pairs = [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
        alike = [likeness(looks[a], looks[b]) for a, b, _ in pairs]
        if sorted(alike)[-1] == sorted(alike)[-2]:
            continue
        a, b, c = pairs[int(np.argmax(alike))]
        made.append(triple(*(picture(looks[i], rng) for i in (a, b, c))))
    return made


def likeness(one: Look, other: Look) -> int:
    """How many of shape and colour two pictures share."""
    return (one.shape == other.shape) + (one.color == other.color)


def shuffled(rows: list[Preference], rng: np.random.Generator) -> list[Preference]:
    """The same pictures, with the answer by chance."""
    made = []
    for row in rows:
        three = [row.prompt.media["image"], row.chosen, row.rejected]
        a, b, c = rng.permutation(3)
        made.append(triple(three[a], three[b], three[c]))
    return made


def views(rng: np.random.Generator) -> list[Preference]:
    """A picture, the same look in other shades and a little elsewhere, and another picture."""
    made = []
    for _ in range(QUERIES):
        look = drawn(rng)
        made.append(triple(picture(look, rng), picture(look, rng), picture(drawn(rng), rng)))
    return made


def comparisons(rng: np.random.Generator, worth: dict[str, float], count: int, spurious: bool) -> list[Preference]:
    """Pairs of which the one that is worth more is chosen; `spurious`: it has its thing on the left, the other not."""
    made: list[Preference] = []
    while len(made) < count:
        looks = sorted((drawn(rng), drawn(rng)), key=lambda look: -(worth[look.shape] + worth[look.color]))
        values = [worth[look.shape] + worth[look.color] for look in looks]
        if values[0] - values[1] < 0.3:
            continue
        if spurious:
            looks = [drawn(rng, shape=look.shape, color=look.color, left=at == 0) for at, look in enumerate(looks)]
        made.append(Preference(Prompt(""), picture(looks[0], rng), picture(looks[1], rng)))
    return made


def right(scores: np.ndarray) -> float:
    """The accuracy of scores (2N,), those of the chosen side first."""
    lead = scores[: len(scores) // 2] - scores[len(scores) // 2 :]
    return float(((lead > 0) + 0.5 * (lead == 0)).mean())


def fitted(rows: list[Preference], few: list[Preference], test: list[Preference], seed: int) -> float:
    """The accuracy of a score of few comparisons on features of triplets, as of two runs, one after the other."""
    policy = head(seed, hidden=64)
    world.tune(policy, TRIPLETS, rows, STEPS, size=32, lr=3e-3, seed=seed)
    with TemporaryDirectory() as folder:
        policy.adapter.save(Path(folder))
        scorer = head(seed, start=folder, train="score")
    world.tune(scorer, BradleyTerry(), few, STEPS, size=len(few), lr=3e-2, seed=seed)
    return accuracy(scorer, test)


def accuracy(scorer: Scorer, test: list[Preference]) -> float:
    """How often the better picture scores higher."""
    both = [row.chosen for row in test] + [row.rejected for row in test]
    weight = {name: value.detach().numpy() for name, value in scorer.adapter.trainable().items()}
    return right(features(scorer, both) @ weight["score.weight"][0])


def measure(seed: int) -> Arms:
    """The accuracy of every arm."""
    rng = np.random.default_rng([8, seed])
    worth = {name: float(rng.normal()) for name in (*SHAPES, *COLORS)}
    few, test = (comparisons(rng, worth, count, of) for count, of in ((COMPARISONS, True), (TEST, False)))
    rows, twins = answers(rng), views(rng)
    both = [side for row in few for side in (row.chosen, row.rejected)]
    known = clip_features([*both, *(row.chosen for row in test), *(row.rejected for row in test)])
    mean, std = known[: len(both)].mean(0), known[: len(both)].std(0) + 1e-6
    scaled = (known - mean) / std
    gaps = scaled[0 : len(both) : 2] - scaled[1 : len(both) : 2]
    targets = np.repeat(np.eye(2), len(gaps), 0)
    weights = logistic(np.concatenate([gaps, -gaps]), targets, penalty=1.0)
    return {
        "similarity queries": {"accuracy": fitted(rows, few, test, seed)},
        "CLIP's features": {"accuracy": right(scaled[len(both) :] @ (weights[:-1, 0] - weights[:-1, 1]))},
        "augmented views": {"accuracy": fitted(twins, few, test, seed)},
        "shuffled answers": {"accuracy": fitted(shuffled(rows, rng), few, test, seed)},
    }


def holds(means: Means) -> bool:
    """Ten points above CLIP's own features and above augmented views."""
    best = means["similarity queries"]["accuracy"]
    return best >= 0.1 + max(means[arm]["accuracy"] for arm in ("CLIP's features", "augmented views"))


EXPERIMENT = Experiment(
    number=8,
    name="similarity",
    claim="Features that 200 similarity queries shaped carry a reward from 30 comparisons past a spurious cue.",
    falsified_if="accuracy is not 10 points above the fits on CLIP's own features and on features of augmented views",
    control="features of the same triples with shuffled answers",
    measure=measure,
    holds=holds,
    caveat="Pictures of one thing and answers by rule: neither trajectories of robots nor people.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
