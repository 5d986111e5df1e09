"""Any two kinds as a positive pair, in the dimensions that a gate opens for them (Hydra, on coloured shapes).

    python -m pipelines.papers.gates

A positive pair shares either colour or shape and differs in the other; its hard negative is the other way round. A head
on CLIP's features and the gates of pairs are learned together; a quarter of the pairs of kinds is never trained on.
Measured on those: how well the gate tells dimensions of the shared attribute from those of the other (a dimension is of
the attribute that explains more of its variance), how often a positive is nearer than its hard negative, and the
features' effective rank against those of the same head without gates.
"""

from __future__ import annotations

import numpy as np
import torch

from mmalign.core.types import Preference, Prompt
from mmalign.evaluation.geometry import effective_rank, separation
from mmalign.miniworld.scenes import COLORS, SHAPES
from mmalign.objectives._contrast import cosine
from mmalign.objectives.contrast import Contrast
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._pictures import Look, drawn, features, head, picture, triple

ROWS, HELD, STEPS, SIZE, WIDTH = 600, 200, 200, 64, 24
KINDS = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
GATE = {"columns": ["kind", "other_kind"], "kinds": KINDS, "width": 16}


def is_held(one: str, other: str) -> bool:
    """Is this pair of kinds kept from training?"""
    first, second = sorted((KINDS.index(one), KINDS.index(other)))
    return (first * 7 + second * 3) % 4 == 0


def rows_of(rng: np.random.Generator, count: int, held: bool) -> list[Preference]:
    """Triples of an anchor, a picture that shares one attribute with it, and one that shares the other."""
    made: list[Preference] = []
    while len(made) < count:
        anchor, shared = drawn(rng), "color" if rng.random() < 0.5 else "shape"
        left_over = "shape" if shared == "color" else "color"
        near = drawn(rng, **{shared: getattr(anchor, shared)})
        far = drawn(rng, **{left_over: getattr(anchor, left_over)})
        if (
            differs(anchor, near, left_over)
            and differs(anchor, far, shared)
            and is_held(anchor.kind, near.kind) == held
        ):
            pictures = (picture(look, rng) for look in (anchor, near, far))
            made.append(triple(*pictures, kind=anchor.kind, other_kind=near.kind, shared=shared))
    return made


def differs(one: Look, other: Look, attribute: str) -> bool:
    """Do two looks differ in an attribute?"""
    return bool(getattr(one, attribute) != getattr(other, attribute))


def explained(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """η² (D,): the share of each dimension's variance that lies between the labels."""
    means = np.stack([found[labels == name].mean(0) for name in labels])
    share: np.ndarray = ((means - found.mean(0)) ** 2).sum(0) / ((found - found.mean(0)) ** 2).sum(0).clip(1e-12)
    return share


@torch.no_grad()
def trained(rows: list[Preference], held: list[Preference], seed: int, gated: bool) -> dict[str, float]:
    """The measures of one arm."""
    policy = head(seed, width=WIDTH, gate=GATE if gated else None)
    objective = Contrast(temperature=0.2, gated=gated, in_batch=False)
    with torch.enable_grad():
        world.tune(policy, objective, rows, STEPS, size=SIZE, lr=1e-2, seed=seed)
    rng = np.random.default_rng([340, seed])
    looks = [drawn(rng) for _ in range(HELD)]
    found = features(policy, [picture(look, rng) for look in looks])
    by = {name: explained(found, np.array([getattr(look, name) for look in looks])) for name in ("color", "shape")}
    asked = [row.prompt for row in held]
    gate = policy.gates(asked) if gated else torch.ones(len(held), WIDTH)
    sides = [
        torch.from_numpy(features(policy, [pick(row) for row in held]))
        for pick in (lambda row: row.prompt.media["image"], lambda row: row.chosen, lambda row: row.rejected)
    ]
    near, far = (cosine(sides[0], side, gate).diagonal() for side in sides[1:])
    of_color = by["color"] > by["shape"]
    aurocs = []
    for name, own in (("color", of_color), ("shape", ~of_color)):
        opened = gate[[row.prompt.meta["shared"] == name for row in held]].mean(0).numpy()
        if own.any() and not own.all():
            aurocs.append(separation(opened[own], opened[~own]))
    return {
        "auroc": float(np.mean(aurocs)) if aurocs else 0.5,
        "nearer": float((near > far).float().mean()),
        "effective_rank": effective_rank(found),
    }


def measure(seed: int) -> Arms:
    """Gated, without gates, and with the names of kinds shuffled among rows."""
    rng = np.random.default_rng([34, seed])
    rows, held = rows_of(rng, ROWS, held=False), rows_of(rng, HELD, held=True)
    order = rng.permutation(ROWS)
    named = [
        Preference(Prompt("", row.prompt.media, {**rows[at].prompt.meta}), row.chosen, row.rejected)
        for row, at in zip(rows, order, strict=True)
    ]
    return {
        "gated": trained(rows, held, seed, gated=True),
        "without gates": trained(rows, held, seed, gated=False),
        "shuffled kinds": trained(named, held, seed, gated=True),
    }


def holds(means: Means) -> bool:
    """The gate of an unseen pair opens the shared attribute's dimensions, and the features lose no rank."""
    gated, plain = means["gated"], means["without gates"]
    return gated["auroc"] > 0.9 and gated["effective_rank"] >= plain["effective_rank"]


EXPERIMENT = Experiment(
    number=34,
    name="gates",
    claim="For pairs of kinds that were never trained on, the gate opens the dimensions of what the pair shares.",
    falsified_if="its AUROC for these dimensions is at most 0.9, or the effective rank is below that without gates",
    control="the same head without gates, and with the kinds' names shuffled among rows",
    measure=measure,
    holds=holds,
    caveat="Thirty kinds of drawn things and a head on a frozen CLIP: no vision model is trained.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
