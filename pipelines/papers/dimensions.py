"""What a reward model was taught shows in its features, dimension by dimension (MRMBench).

    python -m pipelines.papers.dimensions

Six reward models on the rewriter are fitted to 400 comparisons each whose captions differ in one kind of edit: in the
colour, the shape, the count or the relation, in colour or shape, or in any. A logistic probe on the features of
held-out captions, right ones and those of one kind of edit, tells whether they are right in that dimension. By the
nearest centroid of difference features (of training pairs) the dimension of a held-out pair is named, too.
"""

from __future__ import annotations

import numpy as np
import torch

from mmalign.core.types import Preference, Prompt
from mmalign.evaluation.probes import centroids, distances, probe_right
from mmalign.miniworld.grammar import hard_negatives
from mmalign.miniworld.language import Request, parse
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import Judging, fitted

DIMENSIONS = ("colour", "shape", "count", "relation")
TAUGHT = {
    "colour": ("colour",),
    "shape": ("shape",),
    "count": ("count",),
    "relation": ("relation",),
    "colour and shape": ("colour", "shape"),
    "all": DIMENSIONS,
}
ROWS, HELD, STEPS, EDITS = 400, 100, 60, 24


def dimension(one: Request, other: Request) -> str:
    """The dimension in which two requests differ; "" for several, and for those that are left out."""
    if len(one.groups) != len(other.groups):
        return ""
    kinds = [(a.kind, b.kind) for a, b in zip(one.groups, other.groups, strict=True)]
    differ = {
        "colour": any(a.color != b.color for a, b in kinds),
        "shape": any(a.shape != b.shape for a, b in kinds),
        "size": any(a.size != b.size for a, b in kinds),
        "count": any(a.count != b.count for a, b in zip(one.groups, other.groups, strict=True)),
        "relation": one.relation != other.relation,
    }
    found = [name for name, does in differ.items() if does]
    return found[0] if len(found) == 1 and found[0] in DIMENSIONS else ""


def by_dimension(name: str, seed: int, count: int) -> dict[str, list[Preference]]:
    """At most `count` pairs of each dimension, whose rejected caption is one edit off."""
    rng = np.random.default_rng([9, seed])
    made: dict[str, list[Preference]] = {each: [] for each in DIMENSIONS}
    for row in world.rows(name):
        request, seen = parse(row["chosen"]), set()
        for edit in hard_negatives(request, EDITS, rng, split="any"):
            of = dimension(request, edit)
            if of and of not in seen and len(made[of]) < count:
                seen.add(of)
                made[of].append(Preference(Prompt(row["prompt"]), row["chosen"], edit.text))
    return made


def mixed(pairs: dict[str, list[Preference]], of: tuple[str, ...]) -> list[Preference]:
    """As many pairs of each of some dimensions, `ROWS` in all."""
    return [pair for each in of for pair in pairs[each][: ROWS // len(of)]]


@torch.no_grad()
def features(model: Scorer, pairs: list[Preference], side: str) -> np.ndarray:
    """The features (N, D) of one side of pairs."""
    parts = [pairs[i : i + 128] for i in range(0, len(pairs), 128)]
    read = [model.features(model.observe([p.prompt for p in part], [getattr(p, side) for p in part])) for part in parts]
    found: np.ndarray = torch.cat(read).float().numpy()
    return found


def probed(model: Scorer, held: dict[str, list[Preference]]) -> dict[str, float]:
    """The accuracy of a probe on the features, by dimension; both captions of a request are in one fold."""
    accuracy = {}
    for name, pairs in held.items():
        both = np.concatenate([features(model, pairs, "chosen"), features(model, pairs, "rejected")])
        labels, request = np.repeat([1, 0], len(pairs)), np.tile(np.arange(len(pairs)), 2)
        accuracy[name] = float(probe_right(both, labels, kind="logistic", group=request).mean())
    return accuracy


def named(
    model: Scorer, told: dict[str, list[Preference]], held: dict[str, list[Preference]], seed: int
) -> list[float]:
    """How often the nearest centroid names a held-out pair's dimension; and with names dealt out at random."""

    def differences(pairs: dict[str, list[Preference]]) -> tuple[np.ndarray, np.ndarray]:
        every = [pair for each in pairs.values() for pair in each]
        names = np.array([name for name, each in pairs.items() for _ in each])
        return features(model, every, "chosen") - features(model, every, "rejected"), names

    (known, of), (asked, true) = differences({name: each[:HELD] for name, each in told.items()}), differences(held)
    shares = []
    for names in (of, np.random.default_rng([90, seed]).permutation(of)):
        classes, centres = centroids(known, names)
        guess = classes[distances(asked, centres).argmin(1)]
        shares.append(float(np.mean([(guess[true == name] == name).mean() for name in DIMENSIONS])))
    return shares


def measure(seed: int) -> Arms:
    """Probes of each model and of the untaught one, and their rank correlation with best of four."""
    from scipy.stats import spearmanr

    train, held = by_dimension("comparisons_train", seed, ROWS), by_dimension("comparisons_heldout", seed, HELD)
    arms, own, others = {"untaught": probed(fitted(mixed(train, DIMENSIONS), 0, seed), held)}, [], []
    for name, of in TAUGHT.items():
        model = fitted(mixed(train, of), STEPS, seed)
        found = probed(model, held)
        if len(of) == 1:
            gains = {each: found[each] - arms["untaught"][each] for each in DIMENSIONS}
            own.append(gains[name])
            others += [gain for each, gain in gains.items() if each != name]
        mean = float(np.mean(list(found.values())))
        arms[f"taught {name}"] = {**found, "mean": mean, "best_of_4": world.best_of_4(Judging(model))}
    share, by_chance = named(model, train, held, seed)
    table = [arms[f"taught {name}"] for name in TAUGHT]
    rank = spearmanr([one["mean"] for one in table], [one["best_of_4"] for one in table]).statistic
    return {
        **arms,
        "gain over the untaught": {"own": float(np.mean(own)), "others": float(np.mean(others))},
        "six models": {"spearman": float(rank)},
        "nearest centroid": {"named": share, "names_at_random": by_chance},
    }


def holds(means: Means) -> bool:
    """Probes rise in what was taught, by twice as much as elsewhere, and their mean ranks models as best of four."""
    gain = means["gain over the untaught"]
    ranks = means["six models"]["spearman"] >= 0.7
    return gain["own"] >= 0.1 and gain["own"] >= 2 * gain["others"] and ranks


EXPERIMENT = Experiment(
    number=9,
    name="dimensions",
    claim="Probes on a reward model's features show which dimensions it was taught, and their mean ranks such models.",
    falsified_if="a model's own dimension gains under 0.1 or under twice what the others gain, or Spearman of the mean "
    "probe with best of 4 over six models is below 0.7",
    control="the same head and network untaught, and centroids with names dealt out at random",
    measure=measure,
    holds=holds,
    caveat="Spearman of six models has few values; dimensions are those of this world's edits, not the benchmark's.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
