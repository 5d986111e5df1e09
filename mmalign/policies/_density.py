"""The density of any output under a diffusion policy: a denoising-error surrogate of log p.

Each draw is a noise ε and a level u; with x = α x0 + σ ε the term of one draw is

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
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import Condition, LatentAdapter, Prediction, Probe
from mmalign.core.rng import rand, randn
from mmalign.core.tensor import Tensor
from mmalign.core.types import NoiseLevel, Rollout
from mmalign.policies._rollout import micro_batches
from mmalign.policies._steps import like, target

Weighting = Literal["const_v", "const_eps", "elbo"]
LevelDraw = Literal["uniform", "logit_normal"]

_TABLE = 1000  # discrete schedules look u up in a table of this many entries
_EDGE = 1e-3  # the levels at the very ends carry unbounded weights and no information


def draw_probe(adapter: LatentAdapter, rollout: Rollout, draws: int, levels: LevelDraw, rng: torch.Generator) -> Probe:
    """Independent noise samples: `noise` (B, draws, *latent), levels `u` (B, draws) in (0, 1), their `density` p(u).

    `logit_normal` is sigmoid(N(0, 1)) (Esser et al., 2403.03206), which prefers the middle of the schedule.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1.")
    rows, device = len(rollout), adapter.device
    noise = randn((rows, draws, *adapter.latent_shape), rng, device)
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
    """One term per draw, with gradient; their sum over draws estimates log p up to a constant."""
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
    """w of "const_v" or "const_eps" on the squared error of the network's own prediction."""
    if (kind == "epsilon") == (weighting == "const_eps"):
        return torch.ones_like(alpha)
    return alpha.square() if weighting == "const_eps" else alpha.square().reciprocal()


def bound_weight(adapter: LatentAdapter, u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """−dλ/du on the squared error of ε, times α² where the network predicts a velocity; "elbo" before 1 / p(u).

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
