"""The table of metric names: what real short runs log is in it, what is in it is logged; splits change no average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from mmalign.core.config import Trainer
from mmalign.core.metrics import METRICS, Average, Meter, meaning
from mmalign.core.rng import Streams
from mmalign.core.types import Example, Prompt, Rollout, Scores, Status
from mmalign.data.batches import Batches
from mmalign.objectives import objectives
from mmalign.objectives._goals import Goals
from mmalign.objectives._twins import Twins
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.contrast import Contrast
from mmalign.objectives.dpo import DPO
from mmalign.objectives.dragon import DRAGON
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.nft import NFT
from mmalign.objectives.r0 import R0
from mmalign.objectives.sft import SFT
from mmalign.policies.flow import Flow
from mmalign.policies.scorer import Scorer
from mmalign.policies.tokens import Tokens
from mmalign.rewards import Mix, Slot
from mmalign.rewards.combine import combinations
from mmalign.run.hooks import headline
from mmalign.training.loop import training_loop
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.objectives.driving import preferences
from tests.objectives.featured import scorer, triples
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.objectives.scorers import Valued, rows
from tests.toys import NearGaussian, NearPoint, ToyLatent, prompts
from tests.training.problem import Lines

#: Of the table, what these runs do not log: without GPU, cache, long texts, time limit, servers and held-out prompts.
ELSEWHERE = {
    "eval/loss",
    "memory/peak_gib",
    "reward/<reward>/cached",
    "reward/<reward>/texts_cut",
    *(f"reward/<reward>/{asked}" for asked in ("requests", "retries", "prompt_tokens", "completion_tokens")),
    "eval/<measure>",
    "time/evaluate",
    "time/preview",
    "time/save",
    "time/hooks",
}


class EveryStatus(NearPoint):
    """Rows of every status in turn, and a part."""

    range = (-1e9, 0.0)

    def __call__(self, rollout: Rollout) -> Scores:
        scores = super().__call__(rollout)
        scores.status = (torch.arange(len(rollout)) % 8).clamp(max=len(Status)).to(torch.int8) % len(Status)
        scores.parts = {"distance": -scores.value}
        return scores


class TextLength:
    """The number of letters."""

    modalities = frozenset({"text"})
    range = (0.0, float("inf"))
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        return Scores.of(torch.tensor([float(len(text)) for text in rollout.output]))


def with_prior() -> SFT:
    objective = SFT(prior_prompts=("xx",))
    objective.prior_rows = [Example(Prompt("xx"), torch.zeros(1, 1, 2))]
    return objective


def logged(policy: Any, objective: Any, items: Sequence[Any], steps: int = 2, **options: Any) -> list[dict[str, float]]:
    """The lines of a short run by the training loop itself."""
    lines: list[tuple[int, dict[str, float]]] = []
    trainer = Trainer(**{"steps": steps, "prompts_per_step": 4, "lr": 1e-2, "seed": 0, **options})
    session = Session(
        trainer=trainer,
        update_rule=Update(list(policy.module.parameters()), trainer),
        batches=Batches(items, trainer.prompts_per_step, 0),
        streams=Streams(0),
        sink=Lines(lines),
    )
    training_loop(policy, objective, session)
    return [numbers for _, numbers in lines]


def mix(combine: dict[str, Any] | None = None, **rewards: Any) -> Mix:
    """Rewards under a combination, that may fail on any number of rows."""
    built = combinations.build(combine or {"name": "weighted_sum"}, "combine")
    return Mix({name: Slot(reward) for name, reward in rewards.items()}, built, failed_share=1.0)


def near_and_far(**combine: Any) -> Mix:
    return mix(combine or None, near=NearPoint(), far=NearPoint((-1.0, 1.0)))


def test_what_short_runs_log_is_in_the_table_and_what_is_in_it_is_logged(lm: Callable[..., Any]) -> None:
    point, texts = GaussianPolicy, [row.prompt for row in preferences()]
    shown = [Example(Prompt("x"), torch.ones(1, 1, 2))] * 6
    held = near_and_far(name="lagrangian", thresholds={"far": -5.0}, search="near")
    adapter = lm()
    experts = {"better": str(adapter.model), "worse": str(adapter.model)}
    runs = [
        logged(point(), GRPO(near_and_far(), group_size=4, beta=0.1, keep_groups=2), prompts(6)),
        logged(point(), GRPO(mix(odd=EveryStatus(), near=NearPoint()), group_size=8), prompts(6)),
        logged(point(), GRPO(held, group_size=4), prompts(6)),
        logged(Flow(ToyLatent()), GRPO(near_and_far(), group_size=4, beta=0.1, divergence="velocity"), prompts(6)),
        logged(Tokens(lm(), max_new_tokens=4), GRPO(mix(long=TextLength()), group_size=4), texts),
        logged(Tokens(adapter, max_new_tokens=4), objectives.build({"name": "distill", **experts}, "objective"), texts),
        logged(Flow(ToyLatent()), NFT(near_and_far(), group_size=4), prompts(6)),
        logged(point(), DPO(), preferences()),
        logged(point(), DRAGON(mix(near=NearGaussian())), prompts(6)),
        logged(point(), SFT(mix(near=NearPoint()), online="best_of_n"), prompts(6)),
        logged(point(), with_prior(), shown),
        logged(point(), R0(near_and_far(), guidance_weight=0.1, weight_decay_to_start=0.1), prompts(6)),
        logged(Scorer(Valued()), BradleyTerry(), rows({}, {}, {}, {"tie": True})),
        logged(scorer(), Contrast(), triples()),
        logged(scorer(), BradleyTerry(goals=Goals(), twins=Twins()), triples()),
    ]
    names = sorted({name for lines in runs for line in lines for name in line})
    assert [name for name in names if meaning(name) is None] == []
    found = {meaning(name) for name in names}
    assert {key for key, text in METRICS.items() if text not in found} <= ELSEWHERE


def test_names_are_told_apart_and_others_are_unknown() -> None:
    assert len(set(METRICS.values())) == len(METRICS), "two names with one sentence"
    assert meaning("reward/clip") == METRICS["reward/<reward>"]
    assert meaning("reward/clip/std") == METRICS["reward/<reward>/std"]
    assert meaning("reward/iou/parts/iou/mean") == METRICS["reward/<reward>/parts/<part>"]
    assert meaning("cosine/a~b") == METRICS["cosine/<reward>~<reward>"]
    assert meaning("policy/kl") is None and meaning("reward/clip/median") is None


def test_the_headline_waits_for_what_is_logged() -> None:
    every = dict.fromkeys([name for name in METRICS if "<" not in name], 1.0)
    shown = {name for name, _ in headline(every)}
    assert {"kl/reference", "margin/accuracy", "score/loss", "grad/norm"} <= shown
    assert {name for name in shown if meaning(name) is None} == {"loss", "seconds"}  # made of fit/… and time/…


@pytest.mark.parametrize(("micro", "steps"), [(1, 0), (5, 0), (0, 1), (7, 2)])
def test_curves_are_equal_for_any_split(micro: int, steps: int) -> None:
    """Rows have 1 to 3 steps: the mean of the parts' means would be another number."""
    runs = [
        logged(GaussianPolicy(), GRPO(near_and_far(), group_size=5, beta=0.1), prompts(6), 3, **split)
        for split in ({}, {"micro_batch_size": micro, "steps_per_pass": steps})
    ]
    for whole, parts in zip(*runs, strict=True):
        curves = {name for name in whole if not name.startswith("time/") and "seconds" not in name}
        assert {"kl/reference", "kl/old", "ratio/mean", "advantage/size", "ratio/clipped"} <= curves
        for name in curves:
            assert parts[name] == pytest.approx(whole[name], rel=2e-5, abs=2e-6), name


def test_entropy_of_texts_is_equal_for_any_split(lm: Callable[..., Any]) -> None:
    texts = [row.prompt for row in preferences()]

    def entropies(**split: int) -> list[float]:
        policy = Tokens(lm(), max_new_tokens=5)
        objective = GRPO(mix(long=TextLength()), group_size=4, truncated="keep")
        return [line["policy/entropy"] for line in logged(policy, objective, texts, 2, **split)]

    assert entropies(micro_batch_size=3, steps_per_pass=2) == pytest.approx(entropies(), rel=1e-4)


def test_a_meter_divides_once() -> None:
    """Parts of 1 and 3 entries: (8 + 0 + 2 + 4) / 4, not the mean of 8 and 2."""
    meter = Meter()
    for values in ([8.0], [0.0, 2.0, 4.0]):
        tensor = torch.tensor(values)
        meter.add({"kl/old": Average.of(tensor, torch.ones_like(tensor, dtype=torch.bool))})
    assert meter.take() == {"kl/old": 3.5}
    assert float(Average.of(torch.tensor([1.0, 9.0]), torch.tensor([False, True]))) == 9
