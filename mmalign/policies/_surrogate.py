"""The surrogate density of a latent generator: which levels of noise are drawn, and what an error there weighs.

Each draw is a noise ε and a level u, the share of the training schedule (1 is pure noise); with x = α x0 + σ ε the term
of one draw is

    −½ w · ‖target − prediction‖² / draws        (a sum over the event, never a mean)

so that terms add up to (an estimate of) log p up to a constant. The network is evaluated without guidance: the
surrogate is of the conditional model. Policy, reference and both sides of a pair must share one `probe`.

| weighting | w on ‖ε − ε̂‖²        | w on ‖v − v̂‖²          | source |
|-----------|-----------------------|------------------------|--------|
| plain     | 1                     | 1                      | the error of what the network itself predicts |
| const_eps | 1                     | α²                     | DDPM (2006.11239); Diffusion-DPO (2311.12908) |
| const_v   | 1 / α²                | 1                      | rectified flow: the plain velocity error |
| const_x0  | σ² / α²               | σ²                     | the plain error of x̂0, as in diffusers' SD3 scripts |
| min_snr   | min(1, γ / SNR)       | min(α², γ σ²)          | Min-SNR-γ (Hang et al., 2303.09556), SNR = α² / σ² |
| elbo      | −dλ/du / p(u)         | 2 (1 − t) / t / p(t)   | variational bound (Kingma et al., 2107.00630) |
| sigma_sqrt| flows only            | 1 / σ²                 | diffusers' scripts, after Esser et al., 2403.03206 |
| cosmap    | flows only            | 2 / (π (1 − 2σ + 2σ²)) | CosMap (Esser et al., sec. 3.1) |

with λ = log α²/σ², because ε̂ − ε = α (v̂ − v) and x̂0 − x0 = −σ (v̂ − v) at equal x. With α² + σ² = 1 the min_snr column
of v is min(SNR, γ) / (SNR + 1). With `elbo` the expectation of a term over draws is the bound itself, E[−(1 − t)/t
‖v − v̂‖²] for a flow with uniform t: dividing by the density p(u) of the drawn level makes it so for any distribution of
levels. The other weightings take the distribution of levels as part of the objective.

| levels       | u                                             | source |
|--------------|-----------------------------------------------|--------|
| uniform      | U(0, 1)                                       | DDPM |
| logit_normal | sigmoid(mean + std z), z ~ N(0, 1)            | Esser et al., 2403.03206, eq. 19 |
| mode         | 1 − w − s (cos²(π w / 2) − 1 + w), w ~ U(0, 1)| Esser et al., eq. 20 |

then shifted towards noise as the checkpoint's own schedule says, and by `shift` besides:
u′ = shift u / (1 + (shift − 1) u). A mean above 0 prefers noise, as in the paper; diffusers' scripts count their index
from the noisy end, so that their `logit_mean` is ours with the other sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError
from mmalign.core.options import must, outside, refuse
from mmalign.core.protocols import Condition, Denoising, LatentAdapter, Prediction, Probe
from mmalign.core.rng import rand, randn
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel, Rollout
from mmalign.policies._base import micro_batches
from mmalign.policies._steps import like, target

Weighting = Literal["plain", "const_v", "const_eps", "const_x0", "min_snr", "elbo", "sigma_sqrt", "cosmap"]
LevelDraw = Literal["uniform", "logit_normal", "mode"]
OF_FLOWS = ("sigma_sqrt", "cosmap")  # weightings in the levels of a rectified flow
_MODE_LIMIT = 2 / (math.pi - 2)  # above it, levels of "mode" would turn back
_TABLE = 1000  # discrete schedules look u up in a table of this many entries
_EDGE = 1e-3  # the levels at the very ends carry unbounded weights and no information


Weigh = Callable[[Tensor, Tensor, float], Tensor]  # of α and σ, each (B,), and γ


def _constant(alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
    return torch.ones_like(alpha)


def _sigma_sqrt(alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
    return sigma.square().reciprocal()


def _cosmap(alpha: Tensor, sigma: Tensor, gamma: float) -> Tensor:
    return (math.pi / 2 * (1 - 2 * sigma + 2 * sigma.square())).reciprocal()


#: w on ‖ε − ε̂‖² and on ‖v − v̂‖², by weighting, as in the table above.
WEIGHTS: dict[str, tuple[Weigh, Weigh]] = {
    "const_eps": (_constant, lambda a, s, g: a.square()),
    "const_v": (lambda a, s, g: 1 / a.square(), _constant),
    "const_x0": (lambda a, s, g: s.square() / a.square(), lambda a, s, g: s.square()),
    "min_snr": (
        lambda a, s, g: (g * s.square() / a.square()).clamp(max=1),
        lambda a, s, g: torch.minimum(a.square(), g * s.square()),
    ),
    "sigma_sqrt": (_sigma_sqrt, _sigma_sqrt),
    "cosmap": (_cosmap, _cosmap),
}


@dataclass(frozen=True, kw_only=True)
class LevelDistribution:
    """How levels u are distributed: `kind`, with its `mean` and `std` or its `mode` scale, then the `shift`."""

    kind: LevelDraw = "uniform"
    mean: float = 0.0
    std: float = 1.0
    mode: float = 1.29
    shift: float = 1.0

    def __post_init__(self) -> None:
        refuse(
            outside(self, ("std", "shift"), "above 0", lambda value: value > 0),
            must(
                -1 <= self.mode <= _MODE_LIMIT,
                f"density_mode must be in [-1, {_MODE_LIMIT:.4g}], not {self.mode:g}: beyond, levels would turn back.",
            ),
        )

    def draw(self, shape: tuple[int, ...], rng: torch.Generator, device: torch.device | str) -> Probe:
        """Levels `u` in (0, 1) and their `density` p(u), both of `shape`."""
        if self.kind == "logit_normal":
            u = torch.sigmoid(self.mean + self.std * randn(shape, rng, device)).clamp(_EDGE, 1 - _EDGE)
            z = (torch.logit(u) - self.mean) / self.std
            density = (-0.5 * z.square()).exp() / (self.std * math.sqrt(2 * math.pi) * u * (1 - u))
        elif self.kind == "mode":
            w = _EDGE + (1 - 2 * _EDGE) * rand(shape, rng, device)
            u = (1 - w - self.mode * ((w * math.pi / 2).cos().square() - 1 + w)).clamp(_EDGE, 1 - _EDGE)
            density = (1 + self.mode * (1 - math.pi / 2 * (w * math.pi).sin())).clamp(min=_EDGE).reciprocal()
        else:
            u = _EDGE + (1 - 2 * _EDGE) * rand(shape, rng, device)
            density = torch.ones_like(u)
        if self.shift == 1:
            return {"u": u, "density": density}
        slowed = 1 + (self.shift - 1) * u
        return {"u": self.shift * u / slowed, "density": density * slowed.square() / self.shift}


@dataclass(frozen=True, kw_only=True)
class ErrorWeight:
    """What the squared error of the network's own prediction weighs: `kind`, with γ of "min_snr"."""

    kind: Weighting = "const_v"
    gamma: float = 5.0

    def of(self, adapter: LatentAdapter, level: NoiseLevel, draw: Probe) -> Float[Tensor, " B"]:
        """The weight w of each row, at its `level`."""
        if self.kind == "elbo":
            return bound_weight(adapter, draw["u"]) / draw["density"]
        return error_weight(adapter.prediction, level.alpha, level.sigma, self.kind, self.gamma)


def draw_probe(
    adapter: LatentAdapter, rollout: Rollout, draws: int, levels: LevelDistribution, rng: torch.Generator
) -> Probe:
    """Draw noise: `noise` (B, draws, *latent), levels `u` (B, draws) in (0, 1), and their `density` p(u)."""
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1.")
    rows, device = len(rollout), adapter.device
    shape = rollout.trajectory["x0"].shape[1:] if "x0" in rollout.trajectory else adapter.latent_shape
    noise = randn((rows, draws, *shape), rng, device)
    return {"noise": noise, **levels.draw((rows, draws), rng, device)}


def surrogate_log_prob(
    adapter: LatentAdapter, rollout: Rollout, probe: Probe, weight: ErrorWeight, rows: int
) -> Float[Tensor, "B draws"]:
    """Return one term per draw, with gradient; their sum over draws estimates log p up to a constant.

    Rows where `probe["unconditional"]` (B,) is True are conditioned on the adapter's unconditional.
    """
    if "x0" not in rollout.trajectory:
        raise CapabilityError("log_prob needs trajectory['x0']; use a rollout of sample(), generate() or observe().")
    parts = []
    for part in micro_batches(len(rollout), rows):
        draws = {key: value[part].to(adapter.device) for key, value in probe.items()}
        condition = with_dropped(adapter, adapter.encode(rollout.prompts[part]), draws.pop("unconditional", None))
        clean = rollout.trajectory["x0"][part].to(adapter.device)
        terms = [
            _term(adapter, clean, condition, {key: value[:, d] for key, value in draws.items()}, weight)
            for d in range(draws["u"].shape[1])
        ]
        parts.append(torch.stack(terms, 1) / len(terms))
    return torch.cat(parts)


def denoising(adapter: LatentAdapter, rollout: Rollout, probe: Probe, weight: ErrorWeight, rows: int) -> Denoising:
    """Return the network's predictions at every draw, with gradient, their targets, and the weights w / draws.

    Two predictions p and q under one probe are w/2 ‖p − q‖² nats apart, in the units of `surrogate_log_prob`.
    """
    parts = []
    for part in micro_batches(len(rollout), rows):
        draws = {key: value[part].to(adapter.device) for key, value in probe.items()}
        condition = adapter.encode(rollout.prompts[part])
        clean = rollout.trajectory["x0"][part].to(adapter.device)
        count = draws["u"].shape[1]
        each = [{key: value[:, d] for key, value in draws.items()} for d in range(count)]
        seen = [_at(adapter, clean, condition, draw, weight) for draw in each]
        parts.append([torch.stack(of, 1) for of in zip(*seen, strict=True)])
    predictions, targets, weights = (torch.cat(of) for of in zip(*parts, strict=True))
    return Denoising(predictions, targets, weights / probe["u"].shape[1])


def with_dropped(adapter: LatentAdapter, condition: Condition, dropped: Tensor | None) -> Condition:
    """Return `condition` (B rows) with the adapter's unconditional in the rows where `dropped` (B,) is True."""
    if dropped is None or not bool(dropped.any()):
        return condition
    empty = adapter.unconditional(len(dropped))
    return {
        name: torch.where(dropped.to(value.device).view(-1, *[1] * (value.dim() - 1)), empty[name].to(value), value)
        for name, value in condition.items()
    }


def error_weight(
    prediction: Prediction,
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    weighting: Weighting,
    gamma: float = 5.0,
) -> Float[Tensor, " B"]:
    """Return w on the squared error of the network's own prediction, for any weighting but "elbo"."""
    of_noise, of_velocity = WEIGHTS[named_weighting(weighting, prediction)]
    return (of_noise if prediction == "epsilon" else of_velocity)(alpha, sigma, gamma)


def named_weighting(weighting: Weighting, prediction: Prediction) -> Weighting:
    """Return which weighting "plain" is for a network of this prediction; others are themselves."""
    if weighting != "plain":
        return weighting
    return "const_eps" if prediction == "epsilon" else "const_v"


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
    adapter: LatentAdapter, clean: Tensor, condition: Condition, draw: Probe, weight: ErrorWeight
) -> Float[Tensor, " B"]:
    prediction, expected, factor = _at(adapter, clean, condition, draw, weight)
    return -0.5 * factor * (expected - prediction).flatten(1).square().sum(1)


def _at(
    adapter: LatentAdapter, clean: Tensor, condition: Condition, draw: Probe, weight: ErrorWeight
) -> tuple[Tensor, Tensor, Float[Tensor, " B"]]:
    """What the network predicts at one draw, what it should predict, and the weight of the error."""
    level = _level(adapter, draw["u"])
    x = like(level.alpha, clean) * clean + like(level.sigma, clean) * draw["noise"]
    expected = target(adapter.prediction, clean, draw["noise"], level.alpha, level.sigma)
    return adapter.predict(x, level.times, condition), expected, weight.of(adapter, level, draw)


def _level(adapter: LatentAdapter, u: Tensor) -> NoiseLevel:
    return adapter.level(u).to(u.device)
