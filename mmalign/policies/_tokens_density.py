"""Exact log-probs and entropies of completions, in float32, without logits of a whole batch.

Only unmasked positions reach the last layer, a slice of them at a time; each slice's logits are computed again in
backward (checkpointed) instead of kept. Everything is of softmax(logits / temperature) over the whole vocabulary: the
top-k and top-p filters and the repetition penalty do not change it, and so it is the same for sampler, replay and
reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import Inputs, TokenAdapter, UnconditionalTokens
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, StepDist, groups
from mmalign.policies._base import first_rows

Entropy = Literal["detached", "differentiable", "off"]

LOGITS_AT_ONCE = 1 << 25  # float32 logits held at once: 128 MiB


@dataclass(frozen=True, kw_only=True)
class LogProbOptions:
    """How log-probs are computed: `temperature`, `positions` per slice, and whether the entropy is, too.

    `positions` 0 means as many as `LOGITS_AT_ONCE` logits allow.
    """

    temperature: float = 1.0
    positions: int = 0
    entropy: Entropy = "detached"

    def slice_size(self, adapter: TokenAdapter) -> int:
        """Return the number of positions whose logits are held at once."""
        logits = adapter.vocabulary * max(1, torch.Size(adapter.event_shape).numel())
        return self.positions or max(1, LOGITS_AT_ONCE // logits)


def completion_dist(
    adapter: TokenAdapter,
    prompts: Sequence[Prompt],
    tokens: Int[Tensor, "B T *event"],
    mask: Bool[Tensor, "B T"],
    live: Bool[Tensor, "B T"],
    steps: range,
    options: LogProbOptions,
    dropped: Bool[Tensor, " B"] | None = None,
) -> StepDist:
    """Compute log-probs (and entropies) in nats of `steps` of completions, (B, len(steps)), 0 where masked.

    The network reads tokens that are `live`, those in `mask` among them: a conversation has turns between its answers.
    Rows where `dropped` is True continue the adapter's unconditional. Rows of equal prompts share the prompt's forward.
    Columns past the longest completion are not computed, and change no other number.
    """
    last = int(mask[:, : steps.stop].any(0).nonzero().max()) + 1 if bool(mask[:, : steps.stop].any()) else 1
    length = max(last, steps.start + 1)  # at least one column: a part that is masked throughout has a gradient, of 0
    group = groups(prompts)
    inputs = adapter.encode([prompts[i] for i in first_rows(group)])
    if dropped is not None and bool(dropped.any()):
        group = group + len(inputs) * dropped.to(group)
        inputs = [*inputs, *unconditional_inputs(adapter, inputs)]
    tokens, mask = tokens[:, :length], mask[:, :length]
    features = adapter.features(inputs, group.to(tokens.device), tokens, live[:, :length])[:, steps.start :]
    log_prob, entropy = _masked_log_probs(adapter, features, tokens[:, steps.start :], mask[:, steps.start :], options)
    missing = (0, len(steps) - log_prob.shape[1])
    return StepDist(
        torch.nn.functional.pad(log_prob, missing),
        entropy=None if entropy is None else torch.nn.functional.pad(entropy, missing),
    )


def completion_logits(
    adapter: TokenAdapter,
    prompts: Sequence[Prompt],
    tokens: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    temperature: float,
) -> Float[Tensor, "B T V"]:
    """Compute logits over temperature before each token, float32, 0 where masked; all are held at once.

    Raises CapabilityError where a step is several tokens (codebooks).
    """
    if adapter.event_shape:
        raise CapabilityError("logits per step are of texts, whose steps are one token each; these steps are frames.")
    group = groups(prompts)
    inputs = adapter.encode([prompts[i] for i in first_rows(group)])
    features = adapter.features(inputs, group.to(tokens.device), tokens, mask)
    logits = to_float32(adapter.logits(features.flatten(0, 1))).unflatten(0, mask.shape) / temperature
    return logits.where(mask[..., None], 0.0)


def mean_states(
    adapter: TokenAdapter,
    prompts: Sequence[Prompt],
    tokens: Int[Tensor, "B T *event"],
    mask: Bool[Tensor, "B T"],
    live: Bool[Tensor, "B T"],
) -> Float[Tensor, "B D"]:
    """Compute the mean, over the tokens in `mask`, of the last hidden states from which each is predicted; float32.

    The state before a token has read the prompt and all tokens before it; that before the one which ends an output has
    read all of it. A row of no token is 0.

    Raises CapabilityError where the network hands out logits alone.
    """
    group = groups(prompts)
    inputs = adapter.encode([prompts[i] for i in first_rows(group)])
    states = adapter.features(inputs, group.to(tokens.device), tokens, live)
    if not getattr(getattr(adapter, "network", None), "split", True):
        raise CapabilityError(f"{type(adapter).__name__}: this network gives logits alone, and no hidden states.")
    weight = mask.float() / mask.float().sum(1, keepdim=True).clamp(min=1)
    mean = (states.flatten(2).float() * weight[..., None]).sum(1)
    if not torch.is_grad_enabled():
        return mean
    # Processes that train together wait for every weight's gradient: the last layer's is 0 here.
    return mean + 0.0 * adapter.logits(states[:1, 0]).float().sum()


def unconditional_inputs(adapter: TokenAdapter, inputs: Sequence[Inputs]) -> list[Inputs]:
    """Return the unconditional twin of each prompt's inputs; CapabilityError where the adapter knows none."""
    if not isinstance(adapter, UnconditionalTokens):
        raise CapabilityError(
            f"{type(adapter).__name__} has no unconditional to drop captions to; set objective.caption_dropout: 0."
        )
    return adapter.unconditional(inputs)


def token_log_probs(
    logits: Float[Tensor, " N *event V"], tokens: Int[Tensor, " N *event"], options: LogProbOptions
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"] | None]:
    """Compute log-prob and entropy in nats of N steps, each summed over the step's entries; fixed ones count as 0."""
    scaled = to_float32(logits) if options.temperature == 1 else to_float32(logits) / options.temperature
    free = (tokens >= 0) & (tokens < scaled.shape[-1])
    normaliser = scaled.logsumexp(-1)
    chosen = scaled.gather(-1, tokens.where(free, 0)[..., None])[..., 0]
    log_prob = (chosen - normaliser).where(free, 0.0).reshape(len(tokens), -1).sum(1)
    if options.entropy == "off":
        return log_prob, None
    if options.entropy == "differentiable" and torch.is_grad_enabled():
        mean = ((scaled - normaliser[..., None]).exp() * scaled).sum(-1)
    else:
        with torch.no_grad():  # in place: these are the largest tensors there are
            mean = (scaled - normaliser[..., None]).exp_().mul_(scaled).sum(-1)
            normaliser = normaliser.detach()
    return log_prob, (normaliser - mean).where(free, 0.0).reshape(len(tokens), -1).sum(1)


def to_float32(logits: Tensor) -> Tensor:
    """Convert logits of any shape to float32, in which softmax and its sums are exact enough; float64 stays."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _masked_log_probs(
    adapter: TokenAdapter,
    features: Float[Tensor, "B T *features"],
    tokens: Int[Tensor, "B T *event"],
    mask: Bool[Tensor, "B T"],
    options: LogProbOptions,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
    """`token_log_probs` (B, T) of the positions in `mask`, slice by slice, and 0 elsewhere."""
    computed = mask if bool(mask.any()) else torch.ones_like(mask)
    masked_features, masked_tokens = features[computed], tokens[computed]
    size = options.slice_size(adapter)

    def slice_log_probs(features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        return token_log_probs(adapter.logits(features), tokens, options)

    slices = []
    for i in range(0, len(masked_features), size):
        inputs = (masked_features[i : i + size], masked_tokens[i : i + size])
        recompute = len(masked_features) > size and torch.is_grad_enabled()  # a single slice may be kept
        slices.append(
            torch.utils.checkpoint.checkpoint(slice_log_probs, *inputs, use_reentrant=False)
            if recompute
            else slice_log_probs(*inputs)
        )
    log_prob, entropy = (None if part[0] is None else torch.cat(part) for part in zip(*slices, strict=True))
    assert log_prob is not None
    return _scatter(log_prob, computed, mask), None if entropy is None else _scatter(entropy, computed, mask)


def _scatter(
    values: Float[Tensor, " N"], computed: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """The N `values` at the positions `computed`; 0 outside `mask`."""
    return values.new_zeros(mask.shape).masked_scatter(computed, values).where(mask, 0.0)
