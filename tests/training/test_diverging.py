"""A model that diverged ends with one sentence, whatever drives it; one bad update does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmalign.core.config import Trainer
from mmalign.core.errors import Diverged
from mmalign.core.rng import Streams
from mmalign.core.types import Prompt
from mmalign.data.batches import Batches
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.r0 import R0
from mmalign.objectives.sft import SFT
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.few_step import FewStep
from mmalign.policies.scorer import Scorer
from mmalign.policies.tokens import Tokens
from mmalign.rewards import rule
from mmalign.training.failures import LossWatch
from mmalign.training.loop import training_loop
from mmalign.training.session import Session
from mmalign.training.update import Update
from tests.toys import NearPoint, ToyLatent
from tests.training.problem import Problem

Lm = Callable[..., Any]
ADVICE = r"Lower trainer.lr \(now 1e\+30\) or raise trainer.warmup \(now 0\), and start again, or resume"


@rule(modalities={"text"}, range=(0.0, 64.0))
def long(prompt: Prompt, output: str) -> float:
    return float(len(output))


def session_of(adapter: Any, items: list[Prompt], **options: Any) -> Session:
    trainer = Trainer(steps=8, prompts_per_step=len(items), lr=1e30, warmup=0, **options)
    update = Update(list(adapter.trainable().values()), trainer)
    return Session(trainer, update, Batches(items, len(items), 0), Streams(0))


def test_samples_of_a_language_model(lm: Lm) -> None:
    adapter = lm("llama")
    items = [Prompt("say"), Prompt("a red cube")]
    with pytest.raises(Diverged, match=rf"^step 2 of 8: the logits of \d of 8 completions are not finite.*{ADVICE}"):
        training_loop(Tokens(adapter, max_new_tokens=4), GRPO(long(), group_size=4), session_of(adapter, items))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_of_one(temperature: float, lm: Lm) -> None:
    adapter = lm("llama")
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.fill_(torch.inf)
    with pytest.raises(Diverged, match="logits of 2 of 2 completions are not finite: the model diverged"):
        Tokens(adapter, max_new_tokens=4, eval_temperature=temperature).generate([Prompt("a")] * 2, torch.Generator())


def test_imitation_by_one(lm: Lm) -> None:
    adapter = lm("llama")
    items = [Prompt("say", meta={"target": "a b"}), Prompt("a", meta={"target": "c"})]
    with pytest.raises(Diverged, match=rf"the loss of 3 updates in a row is not finite \(nan\): the model.*{ADVICE}"):
        training_loop(Tokens(adapter), SFT(), session_of(adapter, items))


@pytest.mark.parametrize("kind", ["flow", "ddpm", "few_step"])
def test_generators_of_latents(kind: str) -> None:
    objective = R0(NearPoint()) if kind == "few_step" else GRPO(NearPoint(), group_size=4)
    problem = Problem(objective=objective, lr=1e30, warmup=0)
    if kind == "few_step":
        problem.policy = FewStep(problem.adapter, num_inference_steps=2)  # type: ignore[assignment]
    if kind == "ddpm":
        problem.adapter.prediction = "epsilon"
        problem.policy = Ddpm(problem.adapter, num_inference_steps=3)  # type: ignore[assignment]
    with pytest.raises(Diverged, match=rf"^step \d of 6: the (latents|loss) of .*not finite.*: the model.*{ADVICE}"):
        training_loop(problem.policy, problem.objective, problem.session)


def test_scores_of_a_reward_model() -> None:
    class Lost(ToyLatent):
        def read(self, prompts: Any, outputs: Any) -> Any:
            return list(outputs)

        def score(self, inputs: Any) -> torch.Tensor:
            return torch.full((len(inputs),), torch.nan)

    policy = Scorer(Lost())
    with pytest.raises(Diverged, match="the scores of all 2 outputs are not finite: the model diverged"):
        policy.score(policy.observe([Prompt("a")] * 2, ["x", "y"]))


def test_one_loss_that_is_not_finite_is_not_the_end() -> None:
    watch = LossWatch()
    for value in (torch.nan, torch.inf, 1.0, torch.nan, torch.nan):
        watch.see(torch.tensor(value))
    with pytest.raises(Diverged, match=r"3 updates in a row is not finite \(inf\)"):
        watch.see(torch.tensor(torch.inf))
