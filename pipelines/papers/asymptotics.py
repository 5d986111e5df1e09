"""How near GRPO comes to the best policy of its KL, and best of n beside it (Yang et al. 2024).

    python -m pipelines.papers.asymptotics

32 answers of the start to each of 64 held-out requests are scored by the share of right clauses. Best of n and the
tilted policies follow from them; GRPO on that reward is measured after 20, 40 and 60 updates by 8 answers to each.
"""

from __future__ import annotations

import torch

from mmalign.core.rng import stream
from mmalign.core.types import Prompt
from mmalign.evaluation.frontier import best_of_n_curve, reward_at_kl
from mmalign.objectives.grpo import GRPO
from mmalign.policies.tokens import Tokens
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main

PROMPTS, SAMPLES, OWN, EVERY, POINTS = 64, 32, 8, 20, 3


@torch.no_grad()
def own(learner: Tokens, start: Tokens, prompts: list[Prompt], seed: int) -> tuple[float, float]:
    """The KL from the start in nats, and the mean reward, of fresh answers."""
    asked = [prompt for prompt in prompts for _ in range(OWN)]
    rollout = learner.sample(asked, stream(seed, "own"))
    kl = (learner.step_log_prob(rollout).sum(1) - start.step_log_prob(rollout).sum(1)).mean()
    return float(kl), float(world.Truth()(rollout).value.mean())


def measure(seed: int) -> Arms:
    """Reward, the tilted policy's at the same KL, and the share of its gain, by point and by n."""
    start, prompts = world.policy(train="frozen"), world.requests("requests_heldout", PROMPTS)
    drawn = start.sample([prompt for prompt in prompts for _ in range(SAMPLES)], stream(seed, "start"))
    rewards = world.Truth()(drawn).value.view(PROMPTS, SAMPLES).double().numpy()
    base, arms = float(rewards.mean()), {}

    def placed(kl: float, reward: float) -> dict[str, float]:
        best = reward_at_kl(rewards, max(kl, 0.0)).reward
        share = (reward - base) / (best - base) if best > base else 0.0
        return {"kl": kl, "reward": reward, "best": best, "share": share, "above": reward - best}

    for point in best_of_n_curve(rewards):
        if point.by in (2, 4, 16):
            arms[f"best of {point.by:.0f}"] = placed(point.kl, point.reward)
    learner = world.policy()
    for number in range(1, POINTS + 1):
        objective = GRPO(reward=world.Truth(), group_size=8)
        world.tune(learner, objective, world.requests(), EVERY, size=8, lr=3e-4, seed=10 * seed + number)
        arms[f"grpo, {EVERY * number} updates"] = placed(*own(learner, start, prompts, seed))
    return arms


def holds(means: Means) -> bool:
    """No policy lies above the tilted curve by more than noise; best of 4 has most of what is possible at its KL."""
    return max(one["above"] for one in means.values()) <= 0.02 and means["best of 4"]["share"] >= 0.7


EXPERIMENT = Experiment(
    number=38,
    name="asymptotics",
    claim="Every policy lies on or below the tilted curve, and best of n is near it.",
    falsified_if="a point lies over 0.02 above the curve, or best of 4 gains under 0.7 of what is possible at its KL",
    control="the curve itself, from other samples than the policies' own",
    measure=measure,
    holds=holds,
    caveat="32 samples tell the curve up to a KL of 1.7 nats; log n - (n - 1)/n is an upper bound where rewards are "
    "equal, as these often are.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
