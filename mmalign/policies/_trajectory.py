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
from mmalign.core.protocols import Condition, LatentAdapter
from mmalign.core.rng import Noise, home, randn
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, StepDist, groups
from mmalign.policies._rollout import decode_in_range, first_rows, micro_batches
from mmalign.policies._steps import Step, StepRule, normal_log_prob
from mmalign.policies._window import Plan

Predict = Callable[[Tensor, Tensor], Tensor]  # (x (B, *latent), times (B,)) → (B, *latent)
Visit = Callable[[int, Tensor, Step], None]  # called with a step's index, x before it, and the step
Store = Literal["device", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A reverse process: the network, the rule of its steps, and classifier-free guidance."""

    adapter: LatentAdapter
    rule: StepRule
    guidance_scale: float | None
    detach_unconditional: bool = False


def sample_trajectories(
    process: Process,
    prompts: Sequence[Prompt],
    plan: Plan,
    rng: Noise,
    rows: int,
    same_noise: bool = False,
    store: Store = "device",
) -> Rollout:
    """Sample one output per prompt row; the steps `plan.recorded` (B, T) enter the trajectory.

    The trajectory holds `x0` (B, *latent), and of the recorded steps the latents before and after, `x` and `next`
    (B, T, *latent), and their indices, `step` (B, T). With `same_noise` the rows of a group share the initial noise,
    and the deterministic steps before the first noisy one are run once per group (Flow-GRPO-Fast's shared prefix). No
    gradient.
    """
    adapter, group = process.adapter, groups(prompts)
    shape = tuple(adapter.latent_shape)
    heads = first_rows(group) if same_noise else list(range(len(prompts)))
    start = randn((len(heads), *shape), rng, home(rng))
    noise = randn((len(prompts), len(plan.noisy), *shape), rng, home(rng))
    first = 0
    if same_noise:
        first = min(plan.noisy, default=process.rule.steps)
        start = _prefix(process, [prompts[i] for i in heads], start, range(first), rows)[group.to(start.device)]
    parts = []
    for part in micro_batches(len(prompts), rows):
        record = _Record(plan.recorded[part], shape, torch.device(adapter.device), store)
        fresh = {k: noise[part, i].to(adapter.device) for i, k in enumerate(plan.noisy)}
        x0 = _walk(process, prompts[part], start[part], range(first, process.rule.steps), fresh, record)
        parts.append(
            record.rollout(list(prompts[part]), group[part].to(x0.device), x0, decode_in_range(adapter, x0, rows))
        )
    return join(parts)


def sample_final(process: Process, prompts: Sequence[Prompt], rng: Noise, rows: int) -> Rollout:
    """Sample by the deterministic process, one initial noise per row; the trajectory holds `x0` alone. No gradient."""
    deterministic = Plan(noisy=[], recorded=torch.empty(len(prompts), 0, dtype=torch.long))
    return sample_trajectories(process, prompts, deterministic, rng, rows)


def replay(process: Process, rollout: Rollout, steps: slice, rows: int) -> StepDist:
    """The Gaussians of the recorded steps in `steps` under the current weights, with gradient; T = steps selected.

    `rows` is the micro-batch of the forwards; 0 is all rows at once.
    """
    if "x" not in rollout.trajectory:
        raise CapabilityError(
            "this rollout holds no recorded steps, so there is nothing to replay: it was made by generate() or "
            "observe(), or the sampler's noise is 0. Use a rollout of sample() with noise."
        )
    return join([_replay(process, rollout[part], steps) for part in micro_batches(len(rollout), rows)])


def _replay(process: Process, rollout: Rollout, steps: slice) -> StepDist:
    device, rule, trajectory = process.adapter.device, process.rule, rollout.trajectory
    predict = _predictor(process, rollout.prompts)
    log_probs, means, stds = [], [], []
    for t in range(trajectory["step"].shape[1])[steps]:
        x, index = trajectory["x"][:, t].to(device), trajectory["step"][:, t].to(device)
        mean, std, _ = rule.noisy(x, index, predict(x, rule.levels.times[index]), None)
        log_probs.append(normal_log_prob(trajectory["next"][:, t].to(device), mean, std))
        means.append(mean)
        stds.append(std)
    if not log_probs:
        raise ValueError(f"steps {steps} selects none of the {trajectory['step'].shape[1]} recorded steps.")
    dt = None if rule.dt is None else rule.dt[trajectory["step"][:, steps].to(device)]
    return StepDist(torch.stack(log_probs, 1), torch.stack(means, 1), torch.stack(stds, 1), dt=dt)


def _prefix(process: Process, prompts: Sequence[Prompt], start: Tensor, steps: range, rows: int) -> Tensor:
    if not steps:
        return start
    parts = micro_batches(len(prompts), rows)
    return torch.cat([_walk(process, prompts[part], start[part], steps, {}, _ignore) for part in parts])


@without_gradient
def _walk(
    process: Process, prompts: Sequence[Prompt], x: Tensor, steps: range, noise: Mapping[int, Tensor], visit: Visit
) -> Tensor:
    """The latents x after `steps`; those with `noise` are noisy steps."""
    x, rule = x.to(process.adapter.device), process.rule
    predict = _predictor(process, prompts)
    for k in steps:
        index = torch.full((len(x),), k, device=x.device)
        prediction = predict(x, rule.levels.times[index])
        step = rule.noisy(x, index, prediction, noise[k]) if k in noise else rule.plain(x, index, prediction)
        visit(k, x, step)
        x = step.next
    return x


def _predictor(process: Process, prompts: Sequence[Prompt]) -> Predict:
    condition = process.adapter.encode(prompts)
    return guided(process.adapter, condition, process.guidance_scale, process.detach_unconditional)


def guided(
    adapter: LatentAdapter, condition: Condition, scale: float | None, detach_unconditional: bool = False
) -> Predict:
    """The network's prediction under `condition` at guidance `scale`, as a function of (x, times).

    Classifier-free guidance (Ho & Salimans, 2207.12598), both branches in one doubled forward. A scale of None or at
    most 1 means no guidance: one plain forward, no unconditional branch. With `detach_unconditional` the gradient flows
    through the conditional branch only (Flow-GRPO's code): cheaper in backward, a biased gradient.
    """
    if scale is None or scale <= 1:
        return lambda x, times: adapter.predict(x, times, condition)
    guidance_scale, doubled = scale, _doubled(adapter, condition)

    def predict(x: Tensor, times: Tensor) -> Tensor:
        conditional, unconditional = _both(adapter, x, times, doubled)
        unconditional = unconditional.detach() if detach_unconditional else unconditional
        return adapter.guide(conditional, unconditional, guidance_scale)

    return predict


def both_predictions(adapter: LatentAdapter, x: Tensor, times: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    """(conditional, unconditional) predictions at x, each (B, *latent), in one doubled forward."""
    return _both(adapter, x, times, _doubled(adapter, condition))


def _doubled(adapter: LatentAdapter, condition: Condition) -> Condition:
    rows = len(next(iter(condition.values())))
    empty = adapter.unconditional(rows)
    return {key: torch.cat([value, empty[key].to(value)]) for key, value in condition.items()}


def _both(adapter: LatentAdapter, x: Tensor, times: Tensor, doubled: Condition) -> tuple[Tensor, Tensor]:
    conditional, unconditional = adapter.predict(torch.cat([x, x]), torch.cat([times, times]), doubled).chunk(2)
    return conditional, unconditional


def _ignore(k: int, x: Tensor, step: Step) -> None:
    """Record nothing."""


class _Record:
    """The recorded steps (B, T) of one micro-batch, which each row fills in its own order."""

    def __init__(self, steps: Int[Tensor, "B T"], shape: tuple[int, ...], device: torch.device, store: Store) -> None:
        storage = device if store == "device" else torch.device("cpu")
        self.steps = steps.contiguous()
        self.x = torch.empty(*steps.shape, *shape, device=storage)
        self.next = torch.empty_like(self.x)
        self.log_prob = torch.empty(steps.shape, device=device)

    def __call__(self, k: int, x: Float[Tensor, " B *latent"], step: Step) -> None:
        row, column = (self.steps == k).nonzero(as_tuple=True)
        if not len(row):
            return
        on_device, in_store = (tuple(i.to(place) for i in (row, column)) for place in (x.device, self.x.device))
        self.x[in_store] = x[on_device[0]].to(self.x)
        self.next[in_store] = step.next[on_device[0]].to(self.x)
        self.log_prob[on_device] = normal_log_prob(step.next, step.mean, step.std)[on_device[0]]

    def rollout(self, prompts: list[Prompt], group: Tensor, x0: Tensor, output: Any) -> Rollout:
        """The micro-batch as a rollout; without recorded steps its trajectory is `x0` alone."""
        if self.steps.shape[1] == 0:
            return Rollout(prompts=prompts, output=output, group=group, trajectory={"x0": x0})
        trajectory = {"x0": x0, "x": self.x, "next": self.next, "step": self.steps.to(self.x.device)}
        mask = torch.ones_like(self.log_prob, dtype=torch.bool)
        return Rollout(
            prompts=prompts, output=output, group=group, trajectory=trajectory, step_logp=self.log_prob, mask=mask
        )
