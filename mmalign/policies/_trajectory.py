"""Run a reverse process and replay its recorded steps; shared by every policy whose steps are Gaussian.

Sampling and replay call the same functions on the same numbers in micro-batches of the same rows, so before the first
update the replayed log-prob equals the recorded one bit for bit (float32, CPU), the ratio is 1 and the KL 0. Noise is
drawn for all rows before the first forward: the micro-batch size changes no number drawn.

A `Window` says which denoising steps carry noise, and which of those are recorded and trained:

| kind        | noisy steps                     | recorded steps            | source                          |
|-------------|---------------------------------|---------------------------|---------------------------------|
| all         | every candidate                 | the same                  | Flow-GRPO, DDPO                 |
| first       | the first `size` candidates     | the same                  | MixGRPO, held at the noisy end  |
| random      | `size` in a row, one random start for the batch | the same  | Flow-GRPO-Fast, MixGRPO random  |
| progressive | `size` in a row, sliding toward the data, then back to the start | the same | MixGRPO (2507.21802) |
| scattered   | `size` of them, by chance, for the batch | the same         | Flow-Factory's `num_sde_steps`  |
| subset      | every candidate                 | `size` of them, by chance, per row | DanceGRPO (2505.07818) |

"progressive" stays `every` calls at each start; with `decay` k > 0 it stays ceil(every · exp(-k max(0, l - after))), l
the first step of the window: MixGRPO's `exp_decay` (k 0.1, after 13), which hurries through the steps near the data.

A candidate is a step inside `window_range` whose noise the following steps can remove. Steps that carry no noise follow
the ODE. A window is never empty and never shrinks near the end of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import at_least, one_of, within
from mmalign.core.protocols import LatentAdapter
from mmalign.core.rng import Noise, home, rand, randn
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Prompt, Rollout, StepDist, groups, join
from mmalign.policies._base import Predict, decode_in_range, first_rows, guided, micro_batches
from mmalign.policies._steps import Step, StepRule, normal_log_prob

WindowKind = Literal["all", "first", "random", "progressive", "scattered", "subset"]
Visit = Callable[[int, Tensor, Step], None]  # called with a step's index, x before it, and the step
Store = Literal["device", "cpu"]

# A step's noise counts as removable while it is at most this many times the noise level that the step lands on. The
# usual schedules stay below 1.5; the step of a 10-step SD3.5 schedule that lands on 0.0089 with std 0.225 is at 25.
_REMOVABLE = 2.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of one batch: the indices of the `noisy` ones, and of the `recorded` ones (B, T) of each row.

    Both ascend.
    """

    noisy: list[int]
    recorded: Int[Tensor, "B T"]


def bounds(window_range: tuple[float, float], steps: int) -> tuple[int, int]:
    """Return step indices [start, end): a range of values up to 1 is in fractions of `steps`, else in steps.

    At least one step: (0, 0.1) of 4 steps is step 0.
    """
    low, high = window_range
    if high <= 1:
        low, high = low * steps + 1e-9, high * steps + 1e-9
    start = min(int(low), steps - 1)
    return start, max(start + 1, min(int(high), steps))


def candidates(
    std: Sequence[float], sigma_next: Sequence[float], window_range: tuple[float, float], residual_noise: bool
) -> list[int]:
    """Return steps of the range that may carry noise, by `std` and the level `sigma_next` they land on, each (K,).

    The last step, and any step whose noise is far above the level it lands on, would leave noise in the output; only
    `residual_noise` admits them. A step with std 0 is deterministic and never a candidate.
    """
    start, end = bounds(window_range, len(std))
    last = len(std) - 1
    return [
        k
        for k in range(start, end)
        if std[k] > 0 and (residual_noise or (k < last and std[k] <= _REMOVABLE * sigma_next[k]))
    ]


def window_position(calls: int, stays: Sequence[int]) -> int:
    """Return which start the window has after `calls` calls, if it stays `stays[i]` calls at the i-th, repeatedly."""
    remaining = calls % sum(stays)
    for position, stay in enumerate(stays):
        if remaining < stay:
            return position
        remaining -= stay
    raise AssertionError("a remainder is below the sum")


def window_start(position: int, count: int, size: int, stride: int = 1) -> int:
    """Return where the sliding window of `size` ≤ `count` starts after `position` moves; the last touches the end."""
    last = max(count - size, 0)
    moves = -(-last // stride) + 1
    return min((position % moves) * stride, last)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The window options of a policy, checked together; one field per option of the same name."""

    kind: WindowKind
    size: int
    range: tuple[float, float]
    every: int
    stride: int
    residual_noise: bool
    decay: float = 0.0
    decay_after: int = 13

    def __post_init__(self) -> None:
        one_of("window", self.kind, WindowKind)
        at_least("window_size", self.size, 0)
        at_least("window_every", self.every, 1)
        at_least("window_stride", self.stride, 1)
        at_least("window_decay_after", self.decay_after, 0)
        within("window_decay", self.decay, 0)
        if self.decay and self.kind != "progressive":
            raise ValueError(f"window_decay shortens the stays of window 'progressive'; '{self.kind}' has none: set 0.")
        low, high = self.range
        if low < 0 or high <= low:
            raise ValueError(f"window_range is ({low:g}, {high:g}); it must be (start, end) with 0 <= start < end.")
        if self.kind != "all" and self.size == 0:
            raise ValueError(f"window '{self.kind}' needs window_size >= 1, the number of steps to train per sample.")
        if self.kind == "all" and self.size > 0:
            raise ValueError(f"window_size is {self.size} but window 'all' trains every step; name another window.")

    def fits(self, steps: int) -> None:
        """Check what does not depend on the schedule: with K = `steps` the range must hold the window."""
        ones = [1.0] * steps
        self.steps(ones, ones)

    def steps(self, std: Sequence[float], sigma_next: Sequence[float]) -> list[int]:
        """The candidates under these options; a ConfigError where they are fewer than the window needs."""
        low, high = self.range
        if high > 1 and high > len(std):
            raise ConfigError(f"window_range is ({low:g}, {high:g}) but a sample has {len(std)} steps.")
        steps = candidates(std, sigma_next, self.range, self.residual_noise)
        if not steps:
            raise ConfigError(
                f"no step of window_range ({low:g}, {high:g}) can carry noise: of {len(std)} steps the candidates are "
                f"{candidates(std, sigma_next, (0.0, 1.0), self.residual_noise)}. Use an earlier range, more steps, or "
                "residual_noise=True."
            )
        if self.size > len(steps):
            raise ConfigError(f"window_size is {self.size} but only {len(steps)} steps can carry noise: {steps}.")
        return steps

    def draw(self, steps: list[int], calls: int, rows: int, rng: torch.Generator) -> Plan:
        """The plan of a batch of `rows` rows after `calls` earlier batches; `steps` are the candidates."""
        start = self._start(steps, calls) if self.kind == "progressive" and steps else 0
        return draw_plan(self.kind, steps, size=self.size, start=start, rows=rows, rng=rng)

    def _start(self, steps: list[int], calls: int) -> int:
        """Where the sliding window starts, an index into `steps`."""
        moves = -(-max(len(steps) - self.size, 0) // self.stride) + 1
        starts = [window_start(i, len(steps), self.size, self.stride) for i in range(moves)]
        beyond = [max(0, steps[start] - self.decay_after) for start in starts]
        stays = [math.ceil(self.every * math.exp(-self.decay * late)) for late in beyond]
        return starts[window_position(calls, stays)]


def draw_plan(kind: WindowKind, steps: list[int], *, size: int, start: int, rows: int, rng: torch.Generator) -> Plan:
    """The noisy and recorded steps of one batch of `rows` rows.

    `steps` are the `candidates`, `size` is how many of them a row records (0: all), `start` the first of a window that
    stands or slides, see `window_start`.
    """
    size = min(size, len(steps)) or len(steps)
    if kind == "all" or not steps:
        return Plan(noisy=steps, recorded=torch.tensor(steps, dtype=torch.long).expand(rows, -1))
    if kind == "subset":
        picked = rand((rows, len(steps)), rng).argsort(1)[:, :size].sort(1).values.cpu()
        return Plan(noisy=steps, recorded=torch.tensor(steps)[picked])
    if kind == "scattered":
        scattered = sorted(steps[i] for i in rand((len(steps),), rng).argsort()[:size].tolist())
        return Plan(noisy=scattered, recorded=torch.tensor(scattered).expand(rows, -1))
    if kind == "random":
        start = min(int(rand((1,), rng).item() * (len(steps) - size + 1)), len(steps) - size)
    chosen = steps[start : start + size]
    return Plan(noisy=chosen, recorded=torch.tensor(chosen).expand(rows, -1))


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

    def rollout(self, prompts: list[Prompt], group: Tensor, x0: Tensor, output: Tensor | Audio) -> Rollout:
        """The micro-batch as a rollout; without recorded steps its trajectory is `x0` alone."""
        if self.steps.shape[1] == 0:
            return Rollout(prompts=prompts, output=output, group=group, trajectory={"x0": x0})
        trajectory = {"x0": x0, "x": self.x, "next": self.next, "step": self.steps.to(self.x.device)}
        mask = torch.ones_like(self.log_prob, dtype=torch.bool)
        return Rollout(
            prompts=prompts, output=output, group=group, trajectory=trajectory, step_logp=self.log_prob, mask=mask
        )
