"""What policies share: what each takes from its adapter, rows a few at a time, guidance, and outputs in their range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import DataError, Diverged
from mmalign.core.protocols import Adapter, Condition, LatentAdapter
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Audio, Modality, Prompt, Rollout, groups, join

Saturation = Literal["straight_through", "clamp", "off"]
Predict = Callable[[Tensor, Tensor], Tensor]  # (x (B, *latent), times (B,)) → (B, *latent)
Kind = Literal["latents", "tokens", "scores"]  # what an adapter makes
POLICIES: dict[Kind, str] = {"latents": "'flow' or 'ddpm'", "tokens": "'tokens'", "scores": "'scorer'"}


class AdapterPolicy:
    """A policy whose weights are an adapter's; its `adapter` may not be loaded yet while options are checked."""

    adapter: Adapter

    @property
    def modality(self) -> Modality:
        """The modality of the outputs: the adapter's."""
        return self.adapter.modality

    @property
    def module(self) -> Module:
        """The adapter's trainable part, which DDP wraps and whose parameters the optimizer moves."""
        return self.adapter.module

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the policy computes with the weights it started from."""
        return self.adapter.reference()

    def trained_weights(self) -> dict[str, Tensor]:
        """Return copies of the trainable weights as they are now, by name, on the CPU."""
        return {name: weight.detach().cpu().clone() for name, weight in self.adapter.trainable().items()}

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside it, the policy computes with these trainable weights; forwards of other threads wait meanwhile."""
        live = self.adapter.trainable()
        lock = getattr(getattr(self.adapter, "weights", None), "lock", None)
        with nullcontext() if lock is None else lock.exclusive():
            own = {name: parameter.data for name, parameter in live.items()}
            _place(live, {name: weights[name].to(p.device, p.dtype) for name, p in live.items()})
            try:
                yield
            finally:
                _place(live, own)


def _place(live: Mapping[str, torch.nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in live.items():
        parameter.data = weights[name]
    torch.clear_autocast_cache()  # which keeps low-precision copies by parameter, not by storage


class LatentPolicy(AdapterPolicy):
    """A policy around a generator of latents, whose densities are of whole latents: nats summed over `event_size`."""

    adapter: LatentAdapter

    @property
    def event_size(self) -> int:
        """Latent elements of one output: what one log-prob sums over."""
        return math.prod(self.adapter.latent_shape)


def require_kind(policy: str, wanted: Kind, adapter: object) -> None:
    """Raise ValueError unless `adapter` makes what `policy` needs; None (its own options are wrong) passes."""
    kind = type(adapter)
    makes: Kind = "tokens" if hasattr(kind, "begin") else "scores" if hasattr(kind, "score") else "latents"
    if adapter is not None and makes != wanted:
        raise ValueError(
            f"policy '{policy}' needs an adapter that makes {wanted}, and this one ({kind.__name__}) makes {makes}; "
            f"use policy {POLICIES[makes]}."
        )


def first_rows(group: Int[Tensor, " B"]) -> list[int]:
    """Return the index of the first row of each group, by group number."""
    first: dict[int, int] = {}
    for row, number in enumerate(group.tolist()):
        first.setdefault(number, row)
    return [first[number] for number in sorted(first)]


def micro_batches(count: int, rows: int) -> list[slice]:
    """Slice `count` rows into parts of at most `rows`; one part where `rows` is 0."""
    size = rows or max(count, 1)
    return [slice(i, i + size) for i in range(0, count, size)]


def check_finite(x0: Float[Tensor, " B *latent"]) -> None:
    """Raise Diverged where no row's latents are finite."""
    if len(x0) and not bool(x0.detach().flatten(1).isfinite().all(1).any()):
        raise Diverged(f"the latents of all {len(x0)} outputs are not finite: the model diverged")


def decode_in_range(adapter: LatentAdapter, x0: Float[Tensor, " B *latent"], rows: int) -> Tensor | Audio:
    """Decode latents, `rows` rows at a time, to outputs in their range: images in [0, 1], sound in [-1, 1].

    Rows of latents that are not finite are decoded too, and the reward's to refuse; Diverged where all rows are such.
    """
    check_finite(x0)
    return join([in_range(adapter.decode(x0[part])) for part in micro_batches(len(x0), rows)])


def encode_outputs(adapter: LatentAdapter, prompts: Sequence[Prompt], outputs: Tensor | Audio, rows: int) -> Rollout:
    """Make a rollout of given outputs; `trajectory["x0"]` (B, *latent) holds their latents, float32, no gradient."""
    if len(outputs) != len(prompts):
        raise DataError(f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row.")
    with torch.no_grad():
        parts = [adapter.latents(outputs[part]) for part in micro_batches(len(prompts), rows)]
    x0 = torch.cat(parts).to(adapter.device, torch.float32)
    return Rollout(prompts=list(prompts), output=outputs, group=groups(prompts).to(x0.device), trajectory={"x0": x0})


def in_range(output: Tensor | Audio, saturation: Saturation = "clamp") -> Tensor | Audio:
    """Bring images into [0, 1], sound into [-1, 1]: clamped, clamped with the gradient of the identity, or neither."""
    if isinstance(output, Audio):
        return replace(output, samples=_saturate(output.samples, -1.0, saturation))
    return _saturate(output, 0.0, saturation)


def _saturate(values: Tensor, low: float, saturation: Saturation) -> Tensor:
    if saturation == "off":
        return values
    clamped = values.clamp(low, 1.0)
    return values + (clamped - values).detach() if saturation == "straight_through" else clamped


def guided(
    adapter: LatentAdapter, condition: Condition, scale: float | None, detach_unconditional: bool = False
) -> Predict:
    """Return the network's prediction under `condition` at guidance `scale`, as a function of (x, times).

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
    """Return the (conditional, unconditional) predictions at x, each (B, *latent), of one doubled forward."""
    return _both(adapter, x, times, _doubled(adapter, condition))


def _doubled(adapter: LatentAdapter, condition: Condition) -> Condition:
    rows = len(next(iter(condition.values())))
    empty = adapter.unconditional(rows)
    return {key: torch.cat([value, empty[key].to(value)]) for key, value in condition.items()}


def _both(adapter: LatentAdapter, x: Tensor, times: Tensor, doubled: Condition) -> tuple[Tensor, Tensor]:
    conditional, unconditional = adapter.predict(torch.cat([x, x]), torch.cat([times, times]), doubled).chunk(2)
    return conditional, unconditional
