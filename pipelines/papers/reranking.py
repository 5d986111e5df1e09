"""Imitation's weights against a contrastive loss's, for a reranker of captions (SFT or contrastive learning?).

    python -m pipelines.papers.reranking

A linear scorer on frozen features, CLIP's picture times its caption, ranks one true caption among sixteen that differ
in little; in one list of ten another true caption is labelled wrong. Both losses have the direction ∇s; yes or no for
every candidate (SFT) weighs it by σ(s) - y, the softmax over the list (CL) by p - y. Measured on held-out scenes: mean
reciprocal rank and nDCG; and over training the mean size of the weight on the true caption.
"""

from __future__ import annotations

import numpy as np
import torch

from mmalign.core.types import Rollout
from mmalign.evaluation.listwise import ndcg, reciprocal_rank
from mmalign.miniworld.grammar import restatements, sample_scene
from mmalign.miniworld.language import parse
from mmalign.miniworld.scenes import render
from mmalign.objectives._contrast import Weighting, contrastive
from mmalign.rewards.encoders import make_encoder
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._pictures import CLIP

LISTS, HELD, CANDIDATES, STEPS, SIZE, WRONG = 240, 120, 16, 300, 40, 0.1


def lists(name: str, count: int, rng: np.random.Generator, wrong: float) -> tuple[torch.Tensor, int]:
    """Features (N, 16, D) of lists whose first caption is the true one, and how many hold another true one."""
    encoder = make_encoder(CLIP)
    chosen = rng.permutation(len(world.rows(name)))[:count]
    pictures, texts, flawed = [], [], 0
    for at in chosen:
        row = world.rows(name)[int(at)]
        request = parse(row["prompt"])
        scene = sample_scene(request, rng)
        pictures.append(torch.from_numpy(render(scene, rng)))
        negatives = [str(text) for text in rng.permutation(row["negatives"])[: CANDIDATES - 1]]
        others = [other.text for other in restatements(request, scene) if other.text != request.text]
        if others and rng.random() < wrong:
            negatives[0], flawed = others[int(rng.integers(len(others)))], flawed + 1
        texts += [row["prompt"], *negatives]
    with torch.no_grad():
        seen = encoder.embed(Rollout.of([""] * count, torch.stack(pictures)))
        read = encoder.embed(Rollout.of([""] * len(texts), texts)).view(count, CANDIDATES, -1)
    return seen[:, None] * read * seen.shape[1], flawed


def fitted(data: torch.Tensor, held: torch.Tensor, weighting: Weighting, seed: int) -> dict[str, float]:
    """The ranks of a scorer of one loss, and the weights over its training."""
    scorer, rng = torch.nn.Linear(data.shape[-1], 1), torch.Generator().manual_seed(seed)
    torch.nn.init.zeros_(scorer.weight)
    torch.nn.init.constant_(scorer.bias, -float(np.log(CANDIDATES - 1)))  # one in sixteen is true
    adam = torch.optim.Adam(scorer.parameters(), lr=1e-2)
    right = torch.zeros(SIZE, CANDIDATES, dtype=torch.bool)
    right[:, 0] = True
    sizes = []
    for _ in range(STEPS):
        scores = scorer(data[torch.randint(len(data), (SIZE,), generator=rng)])[..., 0]
        value = contrastive(scores, right, torch.ones_like(right), 1.0, weighting)
        (weight,) = torch.autograd.grad(value.sum(), scores, retain_graph=True)
        sizes.append(float(weight[:, 0].abs().mean()))
        adam.zero_grad()
        value.mean().backward()
        adam.step()
    with torch.no_grad():
        table = scorer(held)[..., 0].tolist()
    gains = [1.0] + [0.0] * (CANDIDATES - 1)
    return {
        "mrr": float(np.mean([reciprocal_rank(row[:1], row[1:]) for row in table])),
        "ndcg": float(np.mean([ndcg(row, gains) for row in table])),
        "weight": float(np.mean(sizes)),
        "last_weight": float(np.mean(sizes[-STEPS // 10 :])),
    }


def measure(seed: int) -> Arms:
    """Both losses on the same lists, and CLIP's own cosine."""
    rng = np.random.default_rng([33, seed])
    (data, flawed), (held, _) = lists("contrasts_train", LISTS, rng, WRONG), lists("contrasts_heldout", HELD, rng, 0.0)
    clip = held.sum(2).tolist()
    return {
        "yes or no (SFT)": fitted(data, held, "sigmoid", seed),
        "softmax (CL)": fitted(data, held, "softmax", seed),
        "CLIP's cosine": {
            "mrr": float(np.mean([reciprocal_rank(row[:1], row[1:]) for row in clip])),
            "flawed": flawed / LISTS,
        },
    }


def holds(means: Means) -> bool:
    """The weight on the true caption stays larger with SFT, and its ranks are as good."""
    sft, other = means["yes or no (SFT)"], means["softmax (CL)"]
    return sft["weight"] > other["weight"] and sft["mrr"] >= other["mrr"] - 0.02


EXPERIMENT = Experiment(
    number=33,
    name="reranking",
    claim="At one direction, SFT's weights keep more gradient on the true candidate than CL's, and rank as well.",
    falsified_if="the mean size of its weight on the true candidate is not larger, or its MRR is over 0.02 lower",
    control="CLIP's own cosine, on which nothing is fitted",
    measure=measure,
    holds=holds,
    caveat="A linear scorer on frozen features: the directions of yes and no are one.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
