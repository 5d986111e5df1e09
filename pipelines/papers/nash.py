"""Against an oracle that goes round in circles the average of self-play is safe, the last policy is not (DNO).

    python -m pipelines.papers.nash

Three answers beat each other as rock, paper and scissors do, nine times of ten. A policy over the three plays itself:
`dpo` with all pairs of 16 draws, labels by the gap of their win rates within the draws, and a reference that is the
policy before. Exploitability is how much more than half of its games the best answer to a policy wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mmalign.core.rng import stream
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.objectives.dpo import DPO
from pipelines.papers._experiment import Arms, Experiment, Means, main

WINS = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
WORDS = ["rock", "paper", "scissors"]
STEPS, DRAWS, SCALE = 500, 16, 2.0


class Answers(nn.Module):
    """Log-odds of the three answers."""

    def __init__(self) -> None:
        super().__init__()
        self.odds = nn.Parameter(torch.tensor([0.6, 0.3, 0.1]).log())


class ThreeAnswers:
    """A density policy over three answers."""

    modality = "text"
    event_size = 1

    def __init__(self) -> None:
        self.module = Answers()
        self.start = self.trained_weights()

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """The weights as they are."""
        return {name: weight.detach().clone() for name, weight in self.module.named_parameters()}

    @contextmanager
    def holding(self, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Inside it, the policy has these weights."""
        own = self.module.odds.data
        self.module.odds.data = weights["odds"]
        try:
            yield
        finally:
            self.module.odds.data = own

    def reference(self) -> Any:
        """Inside it, the policy is the start."""
        return self.holding(self.start)

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """One answer to each prompt."""
        chosen = torch.multinomial(self.module.odds.detach().softmax(0).expand(len(prompts), 3), 1, generator=rng)[:, 0]
        return self.observe(prompts, [WORDS[i] for i in chosen.tolist()])

    generate = sample

    def observe(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Rollout:
        """Given answers as a rollout."""
        answer = torch.tensor([WORDS.index(output) for output in outputs])
        group = torch.zeros(len(prompts), dtype=torch.long)
        return Rollout(list(prompts), list(outputs), group, trajectory={"answer": answer})

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> dict[str, torch.Tensor]:
        """Nothing is drawn."""
        return {}

    def log_prob(self, rollout: Rollout, probe: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The log-prob of each answer, (B, 1)."""
        return self.module.odds.log_softmax(0)[rollout.trajectory["answer"], None]


def win_rates(rollout: Rollout) -> Scores:
    """How often each answer wins against the answers drawn beside it."""
    answer = rollout.trajectory["answer"]
    return Scores.of(WINS[answer][:, answer].mean(1))


def exploitability(policy: torch.Tensor) -> float:
    """How much more than half of its games the best answer to a policy (3,) wins."""
    return float((WINS @ policy).max() - 0.5)


def play(seed: int, **options: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Self-play: the last policy, the average of all, and the mean exploitability of the second half of them."""
    player, rng = ThreeAnswers(), stream(seed, "nash")
    objective = DPO(reward=win_rates, online="all_pairs", group_size=DRAWS, **options)
    optimizer = torch.optim.SGD(player.module.parameters(), lr=4.0)
    seen = []
    for _ in range(STEPS):
        with torch.no_grad():
            pairs = objective.collect(player, [Prompt("play")], rng)  # type: ignore[arg-type]
        for _ in range(8):
            optimizer.zero_grad()
            weighted = pairs.with_weight(objective.weigh(pairs.mask, lambda total: total))
            objective.loss(player, weighted, rng)[0].backward()  # type: ignore[arg-type]
            optimizer.step()
        seen.append(player.module.odds.detach().softmax(0))
    late = sum(exploitability(each) for each in seen[STEPS // 2 :]) / (STEPS - STEPS // 2)
    return seen[-1], torch.stack(seen).mean(0), late


def measure(seed: int) -> Arms:
    """Exploitability of the iterates and of their average, with a moving and a fixed reference, and by hard labels."""
    arms = {}
    kinds: dict[str, dict[str, Any]] = {
        "labels by the gap, moving reference": {"label": "gap", "gap_scale": SCALE, "reference_every": 1, "beta": 1.0},
        "labels by the gap, fixed reference": {"label": "gap", "gap_scale": SCALE, "beta": 1.0},
        "hard labels, moving reference": {"reference_every": 1, "beta": 1.0},
    }
    for arm, options in kinds.items():
        _, average, late = play(seed, **options)
        arms[arm] = {"average": exploitability(average), "iterates": late}
    return arms


def holds(means: Means) -> bool:
    """The average of DNO is within 0.05 of safe, and safer than its iterates and than the average by hard labels."""
    own = means["labels by the gap, moving reference"]
    hard = means["hard labels, moving reference"]
    return own["average"] <= 0.05 and own["iterates"] > own["average"] and hard["average"] > own["average"]


EXPERIMENT = Experiment(
    number=21,
    name="nash",
    claim="Where preferences go in circles the average of DNO's iterates is safe, and its iterates are not.",
    falsified_if="the average's exploitability is above 0.05, or not below the iterates' and that of hard labels",
    control="hard labels, and a reference that stays the start",
    measure=measure,
    holds=holds,
    caveat=(
        "Three answers and no language model. A first setting, 150 steps four times as large, did not hold by the same "
        "falsifier; it is kept in 21_nash_first.json."
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
