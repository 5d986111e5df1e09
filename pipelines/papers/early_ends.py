"""Whether states with a goal-conditioned term tell from half an output how it will end (2407.13887).

    python -m pipelines.papers.early_ends

A reward model is fitted to 1,500 comparisons, with and without the term. Of held-out pairs whose texts differ within
their first half, both are cut off there. Measured: how often the cosine of the last state of the half with the mean end
of 200 good training outputs is higher on the chosen side, and the same of the head's own score of the half; and the
accuracy on whole outputs.
"""

from __future__ import annotations

from typing import Any

import torch

from mmalign.adapters import load_adapter
from mmalign.core.types import Preference, Prompt
from mmalign.objectives._goals import Goals
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

ROWS, STEPS, GOOD = 1500, 100, 200


def fitted(goals: Goals | None, seed: int) -> Scorer:
    """A reward model on the rewriter."""
    torch.manual_seed(seed)
    adapter = load_adapter(name="reward_model", model=world.MODEL, train="full", chat=False, device="cpu")
    model = Scorer(adapter)
    objective = BradleyTerry(centre=0.01, goals=goals)
    world.tune(model, objective, world.preferences(count=ROWS), STEPS, lr=1e-3, seed=seed)
    return model


def halves(pairs: list[Preference]) -> list[Preference]:
    """The pairs whose texts differ within their first half, both cut off there."""
    made = []
    for pair in pairs:
        one, two = pair.chosen.split(), pair.rejected.split()
        at = (min(len(one), len(two)) + 1) // 2
        if one[:at] != two[:at]:
            made.append(Preference(pair.prompt, " ".join(one[:at]), " ".join(two[:at])))
    return made


@torch.no_grad()
def last_states(model: Any, rows: list[tuple[Prompt, str]], ended: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and state (N, D) at the last token of outputs; of parts (not `ended`) before the token that ends them."""
    scores, kept = [], []
    for start in range(0, len(rows), 128):
        part = rows[start : start + 128]
        rollout = model.observe([prompt for prompt, _ in part], [text for _, text in part])
        score, states, mask = model.scored_states(rollout)
        order = mask.cumsum(1).masked_fill(~mask, 0)
        last = (order == (mask.sum(1, keepdim=True) - (0 if ended else 1))).long().argmax(1)
        kept.append(states[torch.arange(len(part)), last])
        head = model.adapter.network.model.get_submodule(model.adapter.network.place)
        scores.append(score if ended else head(kept[-1])[:, 0])
    return torch.cat(scores), torch.cat(kept)


def measured(model: Scorer) -> dict[str, float]:
    """How often each reading prefers the chosen side."""
    good = [(pair.prompt, pair.chosen) for pair in world.preferences(count=GOOD)]
    goal = torch.nn.functional.normalize(last_states(model, good, ended=True)[1], dim=1).mean(0)
    held = world.preferences("comparisons_heldout")
    cut = halves(held)
    sides = [last_states(model, [(p.prompt, getattr(p, side)) for p in cut], False) for side in ("chosen", "rejected")]
    near = [torch.cosine_similarity(states, goal[None], dim=1) for _, states in sides]
    whole = [
        last_states(model, [(p.prompt, getattr(p, side)) for p in held], True)[0] for side in ("chosen", "rejected")
    ]
    return {
        "goal": share(near[0] - near[1]),
        "goal_auroc": world.auroc(*near),
        "head": share(sides[0][0] - sides[1][0]),
        "accuracy": share(whole[0] - whole[1]),
        "pairs": float(len(cut)),
    }


def share(lead: torch.Tensor) -> float:
    """How often a lead is positive; a tie is half."""
    return float(((lead > 0).float() + 0.5 * (lead == 0).float()).mean())


def measure(seed: int) -> Arms:
    """With the term, and without."""
    return {
        "with goals": measured(fitted(Goals(weight=0.5, draws=16), seed)),
        "without": measured(fitted(None, seed)),
    }


def holds(means: Means) -> bool:
    """Half outputs are told apart better by .03, and whole ones as well."""
    own, plain = means["with goals"], means["without"]
    return own["goal"] >= plain["goal"] + 0.03 and own["accuracy"] >= plain["accuracy"] - 0.02


EXPERIMENT = Experiment(
    number=46,
    name="early_ends",
    claim="With the goal-conditioned term, the cosine with good ends tells half outputs apart better than without it.",
    falsified_if="it prefers the chosen half not 0.03 more often, or whole outputs lose over 0.02 of accuracy",
    control="the same reading of a model without the term, and the heads' own scores of the halves",
    measure=measure,
    holds=holds,
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
