"""Demonstrations against the policy's own draws are a reward (inverse reinforcement learning).

    python -m pipelines.papers.demonstrations

The demonstrations are the canonical captions of requests; annotator `sampled` sets each against a caption that the
rewriter draws. A reward model fitted to those pairs is held against the truth on held-out draws: rank correlation with
the share of right clauses, and what is gained by the best of eight under it.
"""

from __future__ import annotations

import torch

from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.rng import stream
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted, pair_of, scores

STEPS, DRAWS, HELD = 80, 8, 96


def measure(seed: int) -> Arms:
    """Spearman with the truth and the gain of best of 8, by the fitted model, by length, and by turned labels."""
    from scipy.stats import spearmanr

    rows = [Row.of(row) for row in world.rows("requests_train")]
    generator = {
        "adapter": {"name": "causal_lm", "model": world.MODEL, "device": "cpu"},
        "policy": {"name": "tokens", "max_new_tokens": world.LONGEST},
    }
    spec = {"name": "sampled", "generator": generator, "demonstration": "request", "seed": seed}
    annotate = annotators.build(spec, "sampled")
    made = [result[0] for result in annotate(rows) if not isinstance(result, Skipped)]
    coins = (torch.rand(len(made), generator=stream(seed, "coins")) < 0.5).tolist()
    mixed = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if coin else row
        for row, coin in zip(made, coins, strict=True)
    ]
    asked = world.rows("requests_heldout")[:HELD]
    start = world.policy(train="frozen")
    drawn = [world.sampled(start, [row["prompt"] for row in asked], 1000 + seed * 10 + i) for i in range(DRAWS)]
    texts = [texts[at] for at in range(len(asked)) for texts in drawn]
    prompts = [row["prompt"] for row in asked for _ in range(DRAWS)]
    share = torch.tensor(
        [world.clause_share(text, asked[at // DRAWS]["request"]) for at, text in enumerate(texts)]
    ).view(-1, DRAWS)
    arms: dict[str, dict[str, float]] = {}
    judges = {
        "demonstrations": scores(fitted([pair_of(row) for row in made], STEPS, seed), prompts, texts),
        "sides at random": scores(fitted([pair_of(row) for row in mixed], STEPS, seed), prompts, texts),
        "length": torch.tensor([float(len(text.split())) for text in texts]),
        "the truth": share.flatten(),
    }
    for arm, values in judges.items():
        best = share.gather(1, values.view(-1, DRAWS).argmax(1, keepdim=True)).mean()
        rank = spearmanr(values.numpy(), share.flatten().numpy()).statistic
        arms[arm] = {"spearman": float(rank), "gain": float(best - share.mean())}
    return arms


def holds(means: Means) -> bool:
    """Spearman of at least 0.6, half of the gain that the truth has, and more than length has."""
    own = means["demonstrations"]
    half = own["gain"] >= means["the truth"]["gain"] / 2
    return own["spearman"] >= 0.6 and half and own["gain"] > means["length"]["gain"]


EXPERIMENT = Experiment(
    number=16,
    name="demonstrations",
    claim="A reward fitted to demonstrations against draws ranks held-out draws like the truth.",
    falsified_if="Spearman with the right clauses is below 0.6, or best of 8 gains under half of what the truth gains",
    control="sides exchanged at random, and the length of a caption",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
