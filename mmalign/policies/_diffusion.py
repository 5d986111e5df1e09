"""The diffusion policy: sampling, replay with exact step log-probs, and a surrogate density of a latent generator.

Everything but the step rule is here, once. Policies `flow` and `ddpm` are this one with their rules: which noise their
steps draw, and the options of that noise.

The density of any output is a denoising-error surrogate of log p. Each draw is a noise ε and a level u; with
x = α x0 + σ ε the term of one draw is

    −½ w · ‖target − prediction‖² / draws        (a sum over the event, never a mean)

so that terms add up to (an estimate of) log p up to a constant. The network is evaluated without guidance: the
surrogate is of the conditional model. Policy, reference and both sides of a pair must share one `probe`.

| weighting | w on ‖ε − ε̂‖² | w on ‖v − v̂‖², flow time t | source |
|-----------|----------------|----------------------------|--------|
| const_eps | 1              | (1 − t)²                   | Diffusion-DPO (Wallace et al., 2311.12908) |
| const_v   | 1 / α²         | 1                          | public flow-DPO code: the plain velocity error |
| elbo      | −dλ/du / p(u)  | 2 (1 − t) / t / p(t)       | variational bound (Kingma et al., 2107.00630) |

with λ = log α²/σ², because ε̂ − ε = α (v̂ − v) at equal x. With `elbo` the expectation of a term over draws is the
bound itself, E[−(1 − t)/t ‖v − v̂‖²] for a flow with uniform t: dividing by the density p(u) of the drawn level makes
it so for any distribution of levels. The other two weightings take the distribution of levels as part of the objective.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne, Count, NotNegative, at_least, one_of
from mmalign.core.protocols import Condition, LatentAdapter, Prediction, Probe
from mmalign.core.rng import Noise, rand, randn
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, NoiseLevel, Prompt, Rollout, StepDist
from mmalign.core.unloaded import Unloaded
from mmalign.policies._base import LatentPolicy, encode_outputs, micro_batches, require_kind
from mmalign.policies._steps import StepRule, like, target
from mmalign.policies._trajectory import Process, Store, Window, WindowKind, replay, sample_final, sample_trajectories

Weighting = Literal["const_v", "const_eps", "elbo"]
LevelDraw = Literal["uniform", "logit_normal"]
_TABLE = 1000  # discrete schedules look u up in a table of this many entries
_EDGE = 1e-3  # the levels at the very ends carry unbounded weights and no information

# What other programs call the options of policies of latents.
ALSO_CALLED = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "eval_num_steps": "eval_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sde_type": "sde",
    "sde_window_size": "window_size",
    "sde_window_range": "window_range",
}


@dataclass
class Diffusion(LatentPolicy, ABC):
    """A latent generator as a step, density and sampling policy, whatever its steps are.

    Args:
        adapter: a `LatentAdapter`; its schedule's last level is where sampling ends, as in its own pipeline.
        num_inference_steps: K of `sample`.
        guidance_scale: classifier-free guidance of `sample` and the replay; at most 1 is none.
        detach_unconditional: no gradient through the unconditional branch.
        eval_steps, eval_guidance_scale: of `generate`; None is those of `sample`.
        window: which steps are noisy and trained: "all", "first", "random", "progressive", "scattered" or
            "subset".
        window_size: how many steps that is, T of the rollout; 0 with "all".
        window_range: (start, end) of the steps to choose from, as fractions (values up to 1) or step indices.
        window_every, window_stride: "progressive" moves by `window_stride` steps every `window_every` calls of
            `sample`; the count is part of `state_dict`.
        window_decay, window_decay_after: "progressive" stays ceil(window_every · exp(-window_decay · max(0, l -
            window_decay_after))) calls where its first step is l; 0 stays `window_every` calls everywhere.
        residual_noise: also noisy: the last step where its variance is not 0, and steps that land near σ = 0 with more
            noise than what follows can remove (as Flow-GRPO's first code did). Rewards then judge noisy images.
        same_noise: rows of a group share the initial noise; steps before the first noisy one run once per group.
        weighting, density_levels: weights and distribution of levels of the surrogate density, see above.
        rows: micro-batch of forwards without gradient, and of the replay; 0 is all rows at once. For a ratio of exactly
            1, train in chunks of the same number of rows.
        store: where recorded latents wait: on the adapter's device or in host memory.

    Raises:
        ValueError: an option out of range, an adapter of another prediction, or a window without steps.
    """

    adapter: Unloaded[LatentAdapter]
    _: KW_ONLY
    num_inference_steps: AtLeastOne = 10
    guidance_scale: NotNegative = 1.0
    detach_unconditional: bool = False
    eval_steps: AtLeastOne | None = None
    eval_guidance_scale: NotNegative | None = None
    window: WindowKind = "all"
    window_size: Count = 0
    window_range: tuple[float, float] = (0.0, 1.0)
    window_every: AtLeastOne = 25
    window_stride: AtLeastOne = 1
    window_decay: NotNegative = 0.0
    window_decay_after: Count = 13
    residual_noise: bool = False
    same_noise: bool = False
    weighting: Weighting = "const_v"
    density_levels: LevelDraw = "logit_normal"
    rows: Count = 0
    store: Store = "device"

    also_called: ClassVar[dict[str, str]] = ALSO_CALLED
    forward_per_step: ClassVar[bool] = True
    name: ClassVar[str]
    predictions: ClassVar[tuple[Prediction, ...]]  # of the adapters that its rule can step with
    other: ClassVar[str]  # the policy for the other adapters

    def __post_init__(self) -> None:
        require_kind(self.name, "latents", self.adapter)
        if self.adapter is not None and self.adapter.prediction not in self.predictions:
            raise ValueError(
                f"policy '{self.name}' needs an adapter that predicts {' or '.join(self.predictions)}, and this one "
                f"({type(self.adapter).__name__}) predicts {self.adapter.prediction}; use policy '{self.other}'."
            )
        one_of("weighting", self.weighting, Weighting)
        one_of("density_levels", self.density_levels, LevelDraw)
        one_of("store", self.store, Store)
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("eval_steps", self.eval_steps, 1)
        at_least("rows", self.rows, 0)
        self._calls = 0
        window = self._window()
        if self.draws_noise:  # the schedule is not loaded yet; `sample` checks the window against it
            window.fits(self.num_inference_steps)

    @property
    @abstractmethod
    def draws_noise(self) -> bool:
        """Do the steps of `sample` draw noise? Without it samples are deterministic and no step is recorded."""

    @abstractmethod
    def rule_over(self, levels: NoiseLevel) -> StepRule:
        """Return the step rule along a schedule of K + 1 levels."""

    def step_rule(self, steps: int | None = None) -> StepRule:
        """Return the step rule along the adapter's schedule of `steps` steps; None is `num_inference_steps`."""
        return self.rule_over(self.adapter.schedule(steps or self.num_inference_steps).to(self.adapter.device))

    def state_dict(self) -> dict[str, int]:
        """Return how often `sample` was called: where the progressive window stands."""
        return {"calls": self._calls}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take up what `state_dict` gave."""
        self._calls = int(state["calls"])

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        """Sample one output per row by noisy steps; the trajectory holds `x0` (B, *latent) and what the replay needs.

        That is `x`, `next` (B, T, *latent), the latents before and after each recorded step, and `step` (B, T), its
        index.
        """
        process, window = self._process(), self._window()
        rule = process.rule
        candidates = window.steps(rule.std().tolist(), rule.levels.sigma[1:].tolist()) if self.draws_noise else []
        plan = window.draw(candidates, self._calls, len(prompts), rng)
        self._calls += 1
        return sample_trajectories(process, prompts, plan, rng, self.rows, self.same_noise, self.store)

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """Sample one output per row by `eval_steps` deterministic steps; the trajectory holds `x0` (B, *latent)."""
        scale = self.guidance_scale if self.eval_guidance_scale is None else self.eval_guidance_scale
        return sample_final(self._process(self.eval_steps, scale), prompts, rng, self.rows)

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        """Return the Gaussians of the recorded steps under the current weights, (B, T, *latent), with gradient."""
        return replay(self._process(), rollout, steps, self.rows)

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """Return `step_dist(...).log_prob`, (B, T) in nats, with gradient."""
        return self.step_dist(rollout, steps).log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Tensor | Audio) -> Rollout:
        """Encode given outputs as a rollout that `log_prob` accepts."""
        return encode_outputs(self.adapter, prompts, outputs, self.rows)

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Draw `draws` noise samples and levels per row for `log_prob`, shared by everything that is compared."""
        return draw_probe(self.adapter, rollout, draws, self.density_levels, rng)

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """Return denoising-error terms, T = draws, that sum to an estimate of log p up to a constant; with gradient."""
        return surrogate_log_prob(self.adapter, rollout, probe, self.weighting, self.rows)

    def _process(self, steps: int | None = None, guidance_scale: float | None = None) -> Process:
        return Process(
            adapter=self.adapter,
            rule=self.step_rule(steps),
            guidance_scale=self.guidance_scale if guidance_scale is None else guidance_scale,
            detach_unconditional=self.detach_unconditional,
        )

    def _window(self) -> Window:
        return Window(
            kind=self.window,
            size=self.window_size,
            range=self.window_range,
            every=self.window_every,
            stride=self.window_stride,
            residual_noise=self.residual_noise,
            decay=self.window_decay,
            decay_after=self.window_decay_after,
        )


def draw_probe(adapter: LatentAdapter, rollout: Rollout, draws: int, levels: LevelDraw, rng: torch.Generator) -> Probe:
    """Draw noise: `noise` (B, draws, *latent), levels `u` (B, draws) in (0, 1), and their `density` p(u).

    `logit_normal` is sigmoid(N(0, 1)) (Esser et al., 2403.03206), which prefers the middle of the schedule.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1.")
    rows, device = len(rollout), adapter.device
    shape = rollout.trajectory["x0"].shape[1:] if "x0" in rollout.trajectory else adapter.latent_shape
    noise = randn((rows, draws, *shape), rng, device)
    if levels == "uniform":
        u = _EDGE + (1 - 2 * _EDGE) * rand((rows, draws), rng, device)
        return {"noise": noise, "u": u, "density": torch.ones_like(u)}
    z = randn((rows, draws), rng, device)
    u = torch.sigmoid(z).clamp(_EDGE, 1 - _EDGE)
    density = (-0.5 * torch.logit(u).square()).exp() / (math.sqrt(2 * math.pi) * u * (1 - u))
    return {"noise": noise, "u": u, "density": density}


def surrogate_log_prob(
    adapter: LatentAdapter, rollout: Rollout, probe: Probe, weighting: Weighting, rows: int
) -> Float[Tensor, "B draws"]:
    """Return one term per draw, with gradient; their sum over draws estimates log p up to a constant."""
    if "x0" not in rollout.trajectory:
        raise CapabilityError("log_prob needs trajectory['x0']; use a rollout of sample(), generate() or observe().")
    parts = []
    for part in micro_batches(len(rollout), rows):
        condition = adapter.encode(rollout.prompts[part])
        clean = rollout.trajectory["x0"][part].to(adapter.device)
        draws = {key: value[part].to(adapter.device) for key, value in probe.items()}
        terms = [
            _term(adapter, clean, condition, {key: value[:, d] for key, value in draws.items()}, weighting)
            for d in range(draws["u"].shape[1])
        ]
        parts.append(torch.stack(terms, 1) / len(terms))
    return torch.cat(parts)


def constant_weight(kind: Prediction, alpha: Float[Tensor, " B"], weighting: Weighting) -> Float[Tensor, " B"]:
    """Return w of "const_v" or "const_eps" on the squared error of the network's own prediction."""
    if (kind == "epsilon") == (weighting == "const_eps"):
        return torch.ones_like(alpha)
    return alpha.square() if weighting == "const_eps" else alpha.square().reciprocal()


def bound_weight(adapter: LatentAdapter, u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return −dλ/du on ε's squared error, times α² where a velocity is predicted; "elbo" before 1 / p(u).

    −dλ/du = 2 (dσ/du / σ − dα/du / α), by central differences between whole entries of a 1,000-entry table.
    """
    middle = ((u * _TABLE).floor().clamp(2, _TABLE - 3) + 0.5) / _TABLE
    after, before = _level(adapter, middle + 2 / _TABLE), _level(adapter, middle - 2 / _TABLE)
    alpha_slope, sigma_slope = (
        (a - b) * _TABLE / 4 for a, b in ((after.alpha, before.alpha), (after.sigma, before.sigma))
    )
    level = _level(adapter, u)
    if adapter.prediction == "epsilon":
        return 2 * (sigma_slope / level.sigma - alpha_slope / level.alpha)
    return 2 * level.alpha * (sigma_slope * level.alpha / level.sigma - alpha_slope)


def _term(
    adapter: LatentAdapter, clean: Tensor, condition: Condition, draw: Probe, weighting: Weighting
) -> Float[Tensor, " B"]:
    level = _level(adapter, draw["u"])
    alpha, sigma, noise = level.alpha, level.sigma, draw["noise"]
    x = like(alpha, clean) * clean + like(sigma, clean) * noise
    expected = target(adapter.prediction, clean, noise, alpha, sigma)
    if weighting == "elbo":
        weight = bound_weight(adapter, draw["u"]) / draw["density"]
    else:
        weight = constant_weight(adapter.prediction, alpha, weighting)
    error = (expected - adapter.predict(x, level.times, condition)).flatten(1).square().sum(1)
    return -0.5 * weight * error


def _level(adapter: LatentAdapter, u: Tensor) -> NoiseLevel:
    return adapter.level(u).to(u.device)
