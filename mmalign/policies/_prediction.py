"""What a network's prediction says of the clean latent x0 and the noise ε, and back.

Everywhere x_t = α x0 + σ ε.

| kind    | prediction   | x0              | ε               |
|---------|--------------|-----------------|-----------------|
| flow    | v = ε − x0   | x − σ v         | x + α v         | (α = 1 − σ)
| epsilon | ε            | (x − σ ε) / α   | ε               |
| v       | v = α ε − σ x0 | α x − σ v     | α v + σ x       | (α² + σ² = 1; Salimans & Ho, 2202.00512)

In both velocity kinds an error of the prediction is an error of ε divided by α: ε̂ − ε = α (v̂ − v).
"""

from __future__ import annotations

from jaxtyping import Float

from mmalign.core.protocols import Prediction
from mmalign.core.tensor import Tensor


def like(value: Float[Tensor, " B"], x: Float[Tensor, " B *event"]) -> Tensor:
    """`value` with trailing axes so that it multiplies the rows of `x`."""
    return value.reshape(-1, *[1] * (x.ndim - 1))


def clean_and_noise(
    kind: Prediction,
    x: Float[Tensor, " B *event"],
    prediction: Float[Tensor, " B *event"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> tuple[Tensor, Tensor]:
    """(x0, ε) that `prediction` implies at x. "epsilon" needs α > 0."""
    a, s = like(alpha, x), like(sigma, x)
    if kind == "flow":
        return x - s * prediction, x + a * prediction
    if kind == "epsilon":
        return (x - s * prediction) / a, prediction
    return a * x - s * prediction, a * prediction + s * x


def target(
    kind: Prediction,
    clean: Float[Tensor, " B *event"],
    noise: Float[Tensor, " B *event"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
) -> Tensor:
    """What the network should predict at α x0 + σ ε: the inverse of `clean_and_noise`."""
    if kind == "flow":
        return noise - clean
    if kind == "epsilon":
        return noise
    return like(alpha, clean) * noise - like(sigma, clean) * clean
