"""Does the majority of answers to another wording tell right answers from wrong ones (Co-Reward)?

    python -m pipelines.papers.votes

The rewriter answers two wordings of each of 96 held-out requests eight times. Measured: AUROC of the share of votes for
an answer between answers that mean the right thing and others, with the votes of the other wording, of its own, and of
another request's wording.
"""

from __future__ import annotations

import numpy as np
import torch

from mmalign.core.types import Prompt, Rollout
from mmalign.miniworld.colloquial import colloquial
from mmalign.miniworld.language import parse
from mmalign.rewards import load_reward
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, ANSWERS = 96, 8


def measure(seed: int) -> Arms:
    """AUROC by who votes, and how often the majority is right."""
    rng, start = np.random.default_rng([6, seed]), world.policy(train="frozen")
    rows = world.rows("requests_heldout")[:ROWS]
    texts = [text for row in rows for text in (row["prompt"], colloquial(parse(row["request"]), rng))]
    said = world.sampled(start, [text for text in texts for _ in range(ANSWERS)], seed)
    right = torch.tensor(
        [world.means_the_same(text, rows[i // (2 * ANSWERS)]["request"]) for i, text in enumerate(said)]
    )
    group = torch.arange(len(texts)).repeat_interleave(ANSWERS)

    def rollout(shift: int) -> Rollout:
        """Rows whose wordings belong to one question; with a shift the second is another request's."""
        of = [(i // (2 * ANSWERS) + (shift if (i // ANSWERS) % 2 else 0)) % ROWS for i in range(len(said))]
        prompts = [Prompt(texts[i // ANSWERS], meta={"view_of": str(number)}) for i, number in enumerate(of)]
        return Rollout(prompts, said, group)

    arms: dict[str, dict[str, float]] = {}
    for arm, vote, shift in (("the other wording", "partner", 0), ("its own", "own", 0), ("another's", "partner", 1)):
        value = load_reward("consensus", vote=vote, soft=True)(rollout(shift)).value
        known = ~value.isnan()
        arms[arm] = {"auroc": world.auroc(value[known & right], value[known & ~right])}
    led = load_reward("consensus")(rollout(0)).value == 1
    arms["the other wording"]["right_where_it_leads"] = float(right[led].float().mean())
    return {**arms, "all answers": {"right": float(right.float().mean())}}


def holds(means: Means) -> bool:
    """The other wording's votes tell right from wrong, better than its own and than another request's."""
    auroc = {arm: one.get("auroc", 0.0) for arm, one in means.items()}
    return auroc["the other wording"] > max(0.5, auroc["its own"], auroc["another's"])


EXPERIMENT = Experiment(
    number=6,
    name="votes",
    claim="Votes of another wording tell right answers from wrong ones, better than votes of the same wording.",
    falsified_if="AUROC is at most 0.5, or not above that with votes of the same wording or of another request's",
    control="the votes of another request's wording",
    measure=measure,
    holds=holds,
    caveat="The rewriter leaves out what many wordings name: a mistake of both wins the vote. No policy learns.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
