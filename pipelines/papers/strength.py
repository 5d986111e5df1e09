"""A vote of reward models finds the labels that are wrong, and turns them round (Secrets of RLHF II).

    python -m pipelines.papers.strength

A fifth of 1,000 comparisons is turned round. Three reward models are fitted to resamples; annotator `strength` takes
their vote. Measured: how well a negative vote finds the turned pairs, and the accuracy of a model that is fitted to
clean, to noisy and to voted labels, and to noisy ones with margins.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import accuracy, fitted, pair_of, saved

ROWS, NOISE, VOTERS, STEPS = 1000, 0.2, 3, 50


def measure(seed: int) -> Arms:
    """AUROC of the vote for turned pairs, and accuracy by what is fitted to."""
    rng, clean = stream(seed, "strength"), world.rows("comparisons_train")[:ROWS]
    turned = (torch.rand(ROWS, generator=rng) < NOISE).tolist()
    noisy = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if wrong else row
        for row, wrong in zip(clean, turned, strict=True)
    ]
    held = world.preferences("comparisons_heldout")
    with TemporaryDirectory() as folder:
        voters = []
        for number in range(VOTERS):
            drawn = torch.randint(ROWS, (ROWS,), generator=rng).tolist()
            model = fitted([pair_of(noisy[i]) for i in drawn], STEPS, seed * 10 + number)
            voters.append(saved(model, Path(folder) / str(number)))
        rows = [Row.of(row) for row in noisy]

        def voted(**options: float | bool) -> list[dict[str, object]]:
            vote = annotators.build({"name": "strength", "rewards": voters, **options}, "strength")
            return [result[0] for result in vote(rows) if not isinstance(result, Skipped)]

        corrected, margins = voted(soft=0.2), voted(flip=1e6, margins=True)
    strength = torch.tensor([float(str(row["strength"])) for row in corrected])
    wrong = torch.tensor(turned)
    arms = {"the vote": {"auroc": world.auroc(-strength[wrong], -strength[~wrong])}}
    for arm, data in {
        "clean labels": clean,
        "noisy labels": noisy,
        "voted labels": corrected,
        "noisy labels with margins": margins,
    }.items():
        arms[arm] = {"accuracy": accuracy(fitted([pair_of(row) for row in data], 2 * STEPS, seed), held)}
    return arms


def holds(means: Means) -> bool:
    """The vote finds turned pairs; voted labels come near clean ones, above noisy ones; margins alone do not help."""
    reached = {arm: one.get("accuracy", 0.0) for arm, one in means.items()}
    near = reached["voted labels"] >= reached["clean labels"] - 0.02
    above = reached["voted labels"] >= reached["noisy labels"] + 0.03
    margins = reached["noisy labels with margins"] < reached["voted labels"]
    return means["the vote"]["auroc"] > 0.9 and near and above and margins


EXPERIMENT = Experiment(
    number=3,
    name="strength",
    claim="A vote finds the wrong labels, and a model fitted to the corrected ones is nearly as good as of clean ones.",
    falsified_if="AUROC is at most 0.9, or voted labels are over 0.02 below clean or under 0.03 above noisy ones",
    control="margins of the vote without turning any pair round",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
