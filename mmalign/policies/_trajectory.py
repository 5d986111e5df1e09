"""Run a reverse process and replay its recorded steps; shared by every policy whose steps are Gaussian.

Sampling and replay call the same functions on the same numbers in micro-batches of the same rows, so before the first
update the replayed log-prob equals the recorded one bit for bit (float32, CPU), the ratio is 1 and the KL 0. Noise is
drawn for all rows before the first forward: the micro-batch size changes no number drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.gradient import without_gradient
from mmalign.core.rng import Noise, home, randn
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel, Prompt, Rollout, StepDist, groups
from mmalign.policies._gaussian import normal_log_prob
from mmalign.policies._guided import guided
from mmalign.policies._rollout import decoded, first_rows, micro_batches
from mmalign.policies._steps import Step
from mmalign.policies._window import Plan

# (x, step index (B,), prediction, noise or None) → Step
Advance = Callable[[Tensor, Tensor, Tensor, Tensor | None], Step]
Visit = Callable[[int, Tensor, Step], None]
Store = Literal["device", "cpu"]


@dataclass(frozen=True)
class Process:
    """A reverse process: K + 1 `levels`, its `noisy` and its `plain` (deterministic) step, and guidance.

    `dt` (K,), > 0, is the flow time that each step of a flow covers.
    """

    adapter: Any
    levels: NoiseLevel
    noisy: Advance
    plain: Advance
    guidance_scale: float | None
    detach_unconditional: bool = False
    dt: Float[Tensor, " K"] | None = None

    @property
    def steps(self) -> int:
        """K."""
        return len(self.levels.times) - 1

    def step_std(self) -> Float[Tensor, " K"]:
        """The std of every step's noise; it depends on the levels alone."""
        index = torch.arange(self.steps, device=self.levels.sigma.device)
        nothing = torch.zeros(self.steps, 1, device=index.device)
        return self.noisy(nothing, index, nothing, None).std


def sample_paths(
    process: Process,
    prompts: Sequence[Prompt],
    plan: Plan,
    rng: Noise,
    rows: int,
    same_noise: bool = False,
    store: Store = "device",
) -> Rollout:
    """Sample one output per prompt; `plan.recorded` steps enter the trajectory as `x`, `next` (B, T, *latent), `step`.

    With `same_noise` the rows of a group share the initial noise, and the deterministic steps before the first noisy
    one are run once per group (Flow-GRPO-Fast's shared prefix). No gradient.
    """
    adapter, group = process.adapter, groups(prompts)
    shape = tuple(adapter.latent_shape)
    heads = first_rows(group) if same_noise else list(range(len(prompts)))
    start = randn((len(heads), *shape), rng, home(rng))
    noise = randn((len(prompts), len(plan.noisy), *shape), rng, home(rng))
    first = 0
    if same_noise:
        first = min(plan.noisy, default=process.steps)
        start = _prefix(process, [prompts[i] for i in heads], start, range(first), rows)[group.to(start.device)]
    parts = []
    for part in micro_batches(len(prompts), rows):
        record = _Record(plan.recorded[part], shape, adapter.device, store)
        fresh = {k: noise[part, i].to(adapter.device) for i, k in enumerate(plan.noisy)}
        x0 = _walk(process, prompts[part], start[part], range(first, process.steps), fresh, record)
        parts.append(record.rollout(list(prompts[part]), group[part].to(x0.device), x0, decoded(adapter, x0, rows)))
    return join(parts)


def sample_ends(process: Process, prompts: Sequence[Prompt], rng: Noise, rows: int) -> Rollout:
    """Sample by the deterministic process, one initial noise per row; the trajectory holds `x0` alone. No gradient."""
    nothing = Plan([], torch.empty(len(prompts), 0, dtype=torch.long))
    return sample_paths(process, prompts, nothing, rng, rows)


def replay(process: Process, rollout: Rollout, steps: slice, rows: int) -> StepDist:
    """The Gaussians of the recorded steps in `steps` under the current weights, with gradient; T = steps selected."""
    if "x" not in rollout.trajectory:
        raise CapabilityError(
            "this rollout holds no recorded steps, so there is nothing to replay: it was made by generate() or "
            "observe(), or the sampler's noise is 0. Use a rollout of sample() with noise."
        )
    return join([_replay(process, rollout[part], steps) for part in micro_batches(len(rollout), rows)])


def _replay(process: Process, rollout: Rollout, steps: slice) -> StepDist:
    device, held = process.adapter.device, rollout.trajectory
    predict = _predictor(process, rollout.prompts)
    terms, means, stds = [], [], []
    for t in range(held["step"].shape[1])[steps]:
        x, index = held["x"][:, t].to(device), held["step"][:, t].to(device)
        mean, std, _ = process.noisy(x, index, predict(x, process.levels.times[index]), None)
        terms.append(normal_log_prob(held["next"][:, t].to(device), mean, std))
        means.append(mean)
        stds.append(std)
    if not terms:
        raise ValueError(f"steps {steps} selects none of the {held['step'].shape[1]} recorded steps.")
    dt = None if process.dt is None else process.dt[held["step"][:, steps].to(device)]
    return StepDist(torch.stack(terms, 1), torch.stack(means, 1), torch.stack(stds, 1), dt=dt)


def _prefix(process: Process, prompts: Sequence[Prompt], start: Tensor, steps: range, rows: int) -> Tensor:
    if not steps:
        return start
    parts = micro_batches(len(prompts), rows)
    return torch.cat([_walk(process, prompts[part], start[part], steps, {}, _ignore) for part in parts])


@without_gradient
def _walk(
    process: Process, prompts: Sequence[Prompt], x: Tensor, steps: range, noise: Mapping[int, Tensor], visit: Visit
) -> Tensor:
    x = x.to(process.adapter.device)
    predict = _predictor(process, prompts)
    for k in steps:
        index = torch.full((len(x),), k, device=x.device)
        advance = process.noisy if k in noise else process.plain
        step = advance(x, index, predict(x, process.levels.times[index]), noise.get(k))
        visit(k, x, step)
        x = step.next
    return x


def _predictor(process: Process, prompts: Sequence[Prompt]) -> Callable[[Tensor, Tensor], Tensor]:
    condition = process.adapter.encode(prompts)
    return guided(process.adapter, condition, process.guidance_scale, process.detach_unconditional)


def _ignore(k: int, x: Tensor, step: Step) -> None:
    """Record nothing."""


class _Record:
    """The steps of one micro-batch that the plan wants, each row in its own slots."""

    def __init__(self, steps: Int[Tensor, "B T"], shape: tuple[int, ...], device: torch.device, store: Store) -> None:
        place = device if store == "device" else torch.device("cpu")
        self.steps = steps.contiguous()
        self.x = torch.empty(*steps.shape, *shape, device=place)
        self.next = torch.empty_like(self.x)
        self.log_prob = torch.empty(steps.shape, device=device)

    def __call__(self, k: int, x: Float[Tensor, " B *latent"], step: Step) -> None:
        row, slot = (self.steps == k).nonzero(as_tuple=True)
        if not len(row):
            return
        here, there = (row.to(x.device), slot.to(x.device)), (row.to(self.x.device), slot.to(self.x.device))
        self.x[there] = x[here[0]].to(self.x)
        self.next[there] = step.next[here[0]].to(self.x)
        self.log_prob[here] = normal_log_prob(step.next, step.mean, step.std)[here[0]]

    def rollout(self, prompts: list[Prompt], group: Tensor, x0: Tensor, output: Any) -> Rollout:
        """The micro-batch as a rollout; without recorded steps only `x0` is held."""
        if self.steps.shape[1] == 0:
            return Rollout(prompts, output, group, {"x0": x0})
        held = {"x0": x0, "x": self.x, "next": self.next, "step": self.steps.to(self.x.device)}
        mask = torch.ones_like(self.log_prob, dtype=torch.bool)
        return Rollout(prompts, output, group, held, self.log_prob, mask)
