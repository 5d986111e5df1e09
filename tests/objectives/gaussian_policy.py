"""An exact policy for every capability: T Gaussian steps on R², whose sum is the output.

A prompt of length n gives rows whose first `1 + n % T` steps count. All densities are closed forms, so nothing here is
an approximation; `noisy=True` adds the zero-mean noise of a denoising estimate to `log_prob`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.core.rng import Noise, randn
from mmalign.core.types import Modality, Prompt, Rollout, StepDist


class Steps(nn.Module):
    def __init__(self, steps: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.mean = nn.Parameter(0.1 * torch.randn(steps, 2, generator=rng))
        self.tilt = nn.Parameter(0.1 * torch.randn(steps, 2, generator=rng))

    def forward(self, length: Tensor) -> Tensor:
        return self.mean + self.tilt * length[:, None, None]


class GaussianPolicy:
    modality: Modality = "image"
    event_size = 2

    def __init__(self, steps: int = 3, seed: int = 0, noisy: bool = False, double: bool = False) -> None:
        self.module = Steps(steps, seed)
        self.dtype = torch.float64 if double else torch.float32
        self.module.to(self.dtype)
        self.steps, self.noisy = steps, noisy
        self.std = torch.linspace(0.6, 0.3, steps, dtype=self.dtype)
        self.start = {k: v.clone() for k, v in self.module.state_dict().items()}

    @contextmanager
    def reference(self) -> Iterator[None]:
        live = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.start)
        try:
            yield
        finally:
            self.module.load_state_dict(live)

    def means(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.module(torch.tensor([len(p.text) / 4 for p in prompts], dtype=self.dtype))

    def counts(self, prompts: Sequence[Prompt]) -> Tensor:
        length = torch.tensor([1 + len(p.text) % self.steps for p in prompts])
        return torch.arange(self.steps) < length[:, None]

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        return self.outputs(prompts, rng)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        return self.outputs(prompts, rng)

    def outputs(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        with torch.no_grad():
            rollout = self.rsample(prompts, self.draw(prompts, rng))
            rollout.step_logp = self.step_dist(rollout).log_prob
        return rollout

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        mean, std = self.means(rollout.prompts)[:, steps], self.std[steps]
        z = (rollout.trajectory["y"][:, steps] - mean) / std[:, None]
        logp = (-0.5 * z.square() - std[:, None].log() - 0.5 * math.log(2 * math.pi)).sum(-1)
        return StepDist(log_prob=logp, mean=mean, std=std.expand(len(mean), -1))

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Tensor:
        return self.step_dist(rollout, steps).log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        x0 = outputs.to(self.dtype).flatten(1)
        return Rollout(list(prompts), outputs, torch.arange(len(prompts)), trajectory={"x0": x0})

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> dict[str, Tensor]:
        return {"noise": randn((len(rollout), draws, 2), rng).to(self.dtype)} if self.noisy else {}

    def log_prob(self, rollout: Rollout, probe: dict[str, Tensor]) -> Tensor:
        keep = self.counts(rollout.prompts).to(self.dtype)
        mean = (self.means(rollout.prompts) * keep[..., None]).sum(1)
        variance = (self.std.square() * keep).sum(1)
        gap = (rollout.trajectory["x0"] - mean)[:, None]
        if self.noisy:
            gap = gap + probe["noise"]
        terms = -0.5 * gap.square().sum(-1) / variance[:, None] - variance.log()[:, None] - math.log(2 * math.pi)
        return terms / terms.shape[1]

    def draw(self, prompts: Sequence[Prompt], rng: Noise) -> dict[str, Tensor]:
        return {"noise": randn((len(prompts), self.steps, 2), rng).to(self.dtype)}

    def rsample(self, prompts: Sequence[Prompt], draws: dict[str, Tensor]) -> Rollout:
        y = self.means(prompts) + self.std[:, None] * draws["noise"]
        keep = self.counts(prompts)
        x0 = (y * keep[..., None]).sum(1)
        return Rollout(
            prompts=list(prompts),
            output=x0.reshape(-1, 1, 1, 2),
            group=torch.arange(len(prompts)),
            trajectory={"y": y.detach(), "x0": x0},
            mask=keep,
        )

    def guidance_direction(self, x0: Tensor, prompts: Sequence[Prompt], draws: dict[str, Tensor]) -> Tensor:
        return torch.tensor([1.0, 0.0], dtype=x0.dtype) - x0
