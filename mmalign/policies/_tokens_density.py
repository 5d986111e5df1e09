"""Exact log-probs and entropies of completions, in float32, without logits of a whole batch.

Only live positions reach the last layer, a slice of them at a time; each slice's logits are made again in backward
(checkpointed) instead of kept. Everything is of softmax(logits / temperature) over the whole vocabulary: not narrowed
by top-k and top-p, not changed by the repetition guard, and so the same for sampler, replay and reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, StepDist, groups
from mmalign.policies._rollout import first_rows

Entropy = Literal["detached", "differentiable", "off"]

BUDGET = 1 << 25  # float32 logits held at once: 128 MiB


@dataclass(frozen=True)
class Reading:
    """How completions are judged: temperature, positions per slice (0: as many as `BUDGET` holds), and the entropy."""

    temperature: float = 1.0
    positions: int = 0
    entropy: Entropy = "detached"

    def slice_of(self, adapter: Any) -> int:
        """Positions whose logits are held at once."""
        entries = adapter.vocabulary * max(1, torch.Size(adapter.event_shape).numel())
        return self.positions or max(1, BUDGET // entries)


def judged(
    adapter: Any,
    prompts: Sequence[Prompt],
    tokens: Int[Tensor, "B T *event"],
    mask: Bool[Tensor, "B T"],
    steps: range,
    how: Reading,
) -> StepDist:
    """Log-prob (and entropy) of `steps` of the completions, 0 where masked, with gradient; prompts are shared.

    Columns past the longest completion are not computed, and what they would cost does not enter any other number.
    """
    last = int(mask[:, : steps.stop].any(0).nonzero().max()) + 1 if bool(mask[:, : steps.stop].any()) else 1
    length = max(last, steps.start + 1)  # one column at least: a part without live steps still has a gradient, of 0
    group = groups(prompts)
    inputs = adapter.encode([prompts[i] for i in first_rows(group)])
    said, live = tokens[:, :length], mask[:, :length]
    features = adapter.features(inputs, group.to(tokens.device), said, live)[:, steps.start :]
    log_prob, entropy = _at(adapter, features, said[:, steps.start :], live[:, steps.start :], how)
    missing = (0, len(steps) - log_prob.shape[1])
    return StepDist(
        torch.nn.functional.pad(log_prob, missing),
        entropy=None if entropy is None else torch.nn.functional.pad(entropy, missing),
    )


def _at(
    adapter: Any,
    features: Float[Tensor, "B T *features"],
    tokens: Int[Tensor, "B T *event"],
    mask: Bool[Tensor, "B T"],
    how: Reading,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
    asked = mask if bool(mask.any()) else torch.ones_like(mask)
    wanted, said = features[asked], tokens[asked]
    size = how.slice_of(adapter)

    def piece(features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        return read(adapter.logits(features), tokens, how)

    parts = []
    for i in range(0, len(wanted), size):
        part = (wanted[i : i + size], said[i : i + size])
        again = len(wanted) > size and torch.is_grad_enabled()  # a single slice within the budget may be kept
        parts.append(torch.utils.checkpoint.checkpoint(piece, *part, use_reentrant=False) if again else piece(*part))
    log_prob, entropy = (None if p[0] is None else torch.cat(p) for p in zip(*parts, strict=True))
    return _scattered(log_prob, asked, mask), None if entropy is None else _scattered(entropy, asked, mask)


def _scattered(values: Any, asked: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    return values.new_zeros(mask.shape).masked_scatter(asked, values).where(mask, 0.0)


def read(
    logits: Float[Tensor, " N *event V"], tokens: Int[Tensor, " N *event"], how: Reading
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"] | None]:
    """Log-prob and entropy of N steps, each summed over the step's entries; fixed entries count for nothing."""
    scaled = wide(logits) if how.temperature == 1 else wide(logits) / how.temperature
    free = (tokens >= 0) & (tokens < scaled.shape[-1])
    total = scaled.logsumexp(-1)
    taken = scaled.gather(-1, tokens.where(free, 0)[..., None])[..., 0]
    log_prob = (taken - total).where(free, 0.0).reshape(len(tokens), -1).sum(1)
    if how.entropy == "off":
        return log_prob, None
    if how.entropy == "differentiable" and torch.is_grad_enabled():
        mean = ((scaled - total[..., None]).exp() * scaled).sum(-1)
    else:
        with torch.no_grad():  # in place: these are the largest tensors there are
            mean = (scaled - total[..., None]).exp_().mul_(scaled).sum(-1)
            total = total.detach()
    return log_prob, (total - mean).where(free, 0.0).reshape(len(tokens), -1).sum(1)


def wide(logits: Tensor) -> Tensor:
    """In float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
