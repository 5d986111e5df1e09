"""A rule where it can tell and a model elsewhere, against either alone (HARMO).

    python -m pipelines.papers.hybrid

Of 1,000 requests half carry the right caption, by which a rule tells the share of right clauses; of the others only a
reward model knows something, which was fitted to 200 comparisons. GRPO without dividing by the group's spread follows
the rule on the rows that it applies to, the model on all, the hybrid of both, and the hybrid with the penalty of short
wrong answers. Measured on held-out requests: right clauses, and how many words an answer has per word of the right one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.objectives.grpo import GRPO
from mmalign.policies.tokens import Tokens
from mmalign.rewards import load_reward
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._reward_models import fitted, saved, scores

COMPARISONS, FITTED, UPDATES, WEIGHT = 200, 80, 60, 0.5


@dataclass
class Rule:
    """The share of right clauses where the row has the column `told`; elsewhere the rule is not applicable."""

    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B answers."""
        told = [prompt.meta.get("told") for prompt in rollout.prompts]
        value = [
            float("nan") if right is None else world.clause_share(text, right)
            for text, right in zip(rollout.output, told, strict=True)
        ]
        status = [int(Status.NOT_APPLICABLE if right is None else Status.OK) for right in told]
        return Scores(torch.tensor(value), torch.tensor(status, dtype=torch.int8))


class WithLength:
    """A reward and `WEIGHT` times another that is 0 or below, 0 where that one does not apply."""

    modalities = frozenset({"text"})
    range = (-WEIGHT, 1.0)
    differentiable = False
    batch_dependent = True

    def __init__(self, reward: Any, penalty: Any) -> None:
        self.reward, self.penalty = reward, penalty

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B answers, whole groups of them."""
        value, owed = self.reward(rollout), self.penalty(rollout)
        return replace(value, value=value.value + WEIGHT * owed.value.nan_to_num(0.0))


def rows() -> list[Prompt]:
    """Requests, of which every other one carries its right caption in `told`."""
    asked = world.requests()
    return [
        replace(prompt, meta={**prompt.meta, "told": prompt.meta["request"]}) if at % 2 else prompt
        for at, prompt in enumerate(asked)
    ]


def measured(learner: Tokens) -> dict[str, float]:
    """Right clauses, meaning, and words per word of the right answer, of greedy answers to held-out requests."""
    held = world.rows("requests_heldout")
    texts = world.greedy(learner, [row["prompt"] for row in held])
    lengths = [len(text.split()) / len(row["request"].split()) for text, row in zip(texts, held, strict=True)]
    return {**world.truth(learner), "length": sum(lengths) / len(lengths)}


def measure(seed: int) -> Arms:
    """The start, and GRPO by each reward."""
    asked, pairs = rows(), world.preferences(count=COMPARISONS)
    arms = {"start": measured(world.policy(train="frozen"))}
    model, prompts = fitted(pairs, FITTED, seed), [pair.prompt.text for pair in pairs]
    known = torch.cat([scores(model, prompts, [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected")])
    scale = {"scale": "sigmoid", "middle": float(known.mean()), "spread": float(known.std())}
    rule = {"name": "pipelines.papers.hybrid:Rule"}
    short = load_reward("group_length", correct={"name": "exact_match", "column": "told"})
    untold = [replace(prompt, meta={}) for prompt in asked]
    with TemporaryDirectory() as folder:
        spec = {"rule": rule, "model": saved(model, Path(folder)), **scale}
        both = load_reward("hybrid", allow=["pipelines.papers.hybrid"], **spec)
        for arm, reward, data in (
            ("rule alone", Rule(), [prompt for prompt in asked if "told" in prompt.meta]),
            ("model alone", both, untold),
            ("hybrid", both, asked),
            ("hybrid and length", WithLength(both, short), asked),
        ):
            learner = world.policy()
            objective = GRPO(reward=reward, group_size=8, std="none")
            world.tune(learner, objective, data, UPDATES, size=8, lr=3e-4, seed=seed)
            arms[arm] = measured(learner)
    return arms


def holds(means: Means) -> bool:
    """The hybrid leaves more right clauses than either; with the penalty answers are about as long as right ones."""
    clauses = {arm: one["clauses"] for arm, one in means.items()}
    more = clauses["hybrid"] > max(clauses["rule alone"], clauses["model alone"])
    return more and 0.8 <= means["hybrid and length"]["length"] <= 1.2


EXPERIMENT = Experiment(
    number=44,
    name="hybrid",
    claim="At equal updates the hybrid of a rule and a model teaches more that is right than either alone.",
    falsified_if="right clauses are not above those by the rule and by the model alone, or answers with the penalty "
    "are over a fifth longer or shorter than right ones",
    control="the rule on its own rows alone, the model on all rows, and the hybrid without the penalty of length",
    measure=measure,
    holds=holds,
    caveat="The reward of instructions has no part in it: requests of this world carry none.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
