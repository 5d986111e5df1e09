"""The embedded model with each objective, and the same model calls made bare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mmalign.adapters.image.sd3 import SD3
from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.core.types import Prompt, Rollout
from mmalign.data.batches import Batches
from mmalign.miniworld.splits import distinct_requests
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.r0 import R0
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from mmalign.rewards import Mix, load_reward
from mmalign.training.loop import training_loop
from mmalign.training.session import Session
from mmalign.training.update import Update

PROMPTS, GROUP, STEPS, TRAINED = 4, 8, 8, 2


def generator() -> SD3:
    """The embedded generator, trained whole."""
    adapter = SD3(model="assets/scenes_sd3", train="full", max_sequence_length=1, text_encoder_3=False)
    adapter.load()
    return adapter


def mix(name: str) -> Mix:
    """One reward, as a run holds it."""
    options = {"checkpoint": "assets/scenes_clip"} if name == "clip" else {}
    return Mix({name: load_reward(name, **options)})


def session(adapter: Any, trainer: Trainer) -> Session:
    """A session over a few prompts."""
    texts = [Prompt(request.text) for request in distinct_requests("train", 64)]
    adapter.encode(texts)  # a prompt is encoded once in a run; the steps measured here come after that
    rule = Update(list(adapter.trainable().values()), trainer)
    return Session(trainer, rule, Batches(texts, trainer.prompts_per_step, 0), Streams(0))


def grpo(adapter: Any, group: int = GROUP, prompts: int = PROMPTS) -> tuple[Any, Any, Session]:
    """Policy, objective, session."""
    policy = Flow(adapter=adapter, num_inference_steps=STEPS, window="first", window_size=TRAINED)
    return (
        policy,
        GRPO(reward=mix("clip"), group_size=group),
        session(adapter, Trainer(steps=1 << 30, prompts_per_step=prompts, lr=1e-9)),
    )


def dpo(adapter: Any) -> tuple[Any, Any, Session]:
    """Online best-against-worst."""
    policy = Flow(adapter=adapter, noise_level=0.0, num_inference_steps=STEPS)
    objective = DPO(reward=mix("clip"), online="best_worst", group_size=GROUP, reference_rows=64)
    return policy, objective, session(adapter, Trainer(steps=1 << 30, prompts_per_step=PROMPTS, lr=1e-9))


def r0(adapter: Any) -> tuple[Any, Any, Session]:
    """Four steps with gradient."""
    policy = FewStep(adapter=adapter, num_inference_steps=4)
    objective = R0(reward=mix("clip"), samples_per_prompt=1)
    return policy, objective, session(adapter, Trainer(steps=1 << 30, prompts_per_step=PROMPTS * GROUP // 2, lr=1e-9))


def one_step(policy: Any, objective: Any, session: Session) -> Callable[[], None]:
    """A function that trains one more step through the loop."""

    def step() -> None:
        session.trainer.steps = session.step + 1
        training_loop(policy, objective, session)

    step()  # the first two steps also carry the start-up checks
    step()
    return step


class Bare:
    """The model calls that a step cannot avoid, and nothing else."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.reward = load_reward("clip", checkpoint="assets/scenes_clip")
        self.optimizer = torch.optim.AdamW(list(adapter.trainable().values()), lr=1e-9)
        self.texts = [Prompt(request.text) for request in distinct_requests("train", 64)]

    def condition(self, rows: int) -> tuple[list[Prompt], Any]:
        """Prompts and their (cached) conditions."""
        prompts = [self.texts[i % PROMPTS] for i in range(rows)]
        return prompts, self.adapter.encode(prompts)

    def predict(self, x: torch.Tensor, condition: Any) -> torch.Tensor:
        """One network call."""
        return self.adapter.predict(x, torch.full((len(x),), 500.0), condition)

    def judge(self, prompts: list[Prompt], images: torch.Tensor) -> torch.Tensor:
        """One reward call."""
        return self.reward(Rollout(prompts, images, torch.zeros(len(prompts), dtype=torch.long))).value

    def update(self, loss: torch.Tensor) -> None:
        """Backward and one optimizer step."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.adapter.trainable().values()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def grpo(self, rows: int = PROMPTS * GROUP) -> None:
        """K predictions, decode, judge; T predictions with gradient."""
        prompts, condition = self.condition(rows)
        x = torch.randn(rows, *self.adapter.latent_shape)
        with torch.no_grad():
            for _ in range(STEPS):
                x = x - 0.1 * self.predict(x, condition)
            self.judge(prompts, self.adapter.decode(x).clamp(0, 1))
        self.update(torch.stack([self.predict(x, condition).square().mean() for _ in range(TRAINED)]).sum())

    def dpo(self) -> None:
        """K predictions, decode, judge; the reference and the policy on both sides of every pair."""
        prompts, condition = self.condition(PROMPTS * GROUP)
        x = torch.randn(len(prompts), *self.adapter.latent_shape)
        with torch.no_grad():
            for _ in range(STEPS):
                x = x - 0.1 * self.predict(x, condition)
            self.judge(prompts, self.adapter.decode(x).clamp(0, 1))
            few = {name: value[:PROMPTS] for name, value in condition.items()}
            with self.adapter.reference():
                for _ in range(2):
                    self.predict(x[:PROMPTS], few)
        self.update(torch.stack([self.predict(x[:PROMPTS], few).square().mean() for _ in range(2)]).sum())

    def r0(self) -> None:
        """Four predictions with gradient, decode, judge, and back through all of it."""
        prompts, condition = self.condition(PROMPTS * GROUP // 2)
        x = torch.randn(len(prompts), *self.adapter.latent_shape)
        for _ in range(4):
            x = x - 0.25 * self.predict(x, condition)
        images = self.adapter.decode(x)
        self.update(-self.judge(prompts, images).mean())
