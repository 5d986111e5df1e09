"""What every policy around an adapter has: the adapter's modality, module and reference, and a check of its kind."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Literal

from mmalign.core.protocols import Adapter, LatentAdapter
from mmalign.core.tensor import Module
from mmalign.core.types import Modality

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
        """The adapter's trainable part."""
        return self.adapter.module

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the policy computes with the weights it started from."""
        return self.adapter.reference()


class LatentPolicy(AdapterPolicy):
    """A policy around a generator of latents."""

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
