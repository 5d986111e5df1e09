"""One network of transformers or diffusers from its folder: safetensors, complete, frozen, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import CheckpointError
from mmalign.loading.complete import check_complete
from mmalign.loading.exclusive import loading
from mmalign.loading.foreign import PretrainedModel

FAULTS = (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, ImportError)  # of the libraries


_WITHOUT_WEIGHTS: ContextVar[bool] = ContextVar("without_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside it networks are made from their configurations, on torch's device "meta": shapes, and no numbers."""
    before = _WITHOUT_WEIGHTS.set(True)
    try:
        yield
    finally:
        _WITHOUT_WEIGHTS.reset(before)


def open_network(
    folder: Path,
    kind: str | type[PretrainedModel],
    dtype: torch.dtype | None = None,
    *,
    variant: str | None = None,
    spare: Collection[str] = (),
    heads: bool = False,
    **more: Any,
) -> Any:
    """The network that `kind.from_pretrained` makes of `folder`, in evaluation mode, without gradient.

    Args:
        folder: with `config.json` and safetensors; it was looked at by `check_component`.
        kind: a network class of transformers or diffusers, an Auto class, or the name of one of transformers'.
        dtype: of the weights; float32 by default.
        variant: of the weight files ("fp16"), where the folder has them.
        spare, heads: see `check_complete`.
        more: options of the class.

    Raises:
        CheckpointError: no such network could be built, or its weights are not complete.
    """
    with loading():
        import transformers

        kind = getattr(transformers, kind) if isinstance(kind, str) else kind
        of_diffusers = kind.__module__.startswith("diffusers.")
        if _WITHOUT_WEIGHTS.get():
            return _hollow(folder, kind, dtype or torch.float32, more).requires_grad_(False).eval()
        options: dict[str, Any] = {"dtype": dtype or torch.float32, **more}
        if not of_diffusers:
            options["trust_remote_code"] = False
        if variant and any(f".{variant}" in file.name for file in folder.glob("*.safetensors*")):
            options["variant"] = variant
        try:
            network, report = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except FAULTS as error:
            raise CheckpointError(f"{folder}: no {_called(kind)} could be built from it: {error}") from error
        check_complete(folder, network, report, spare, heads)
        return network.requires_grad_(False).eval()


def _hollow(folder: Path, kind: type[PretrainedModel], dtype: torch.dtype, more: Mapping[str, Any]) -> Any:
    """The network of the configuration in `folder`, without weights."""
    from transformers import AutoConfig

    def made() -> Any:
        if kind.__module__.startswith("diffusers."):
            return kind.from_config(kind.load_config(folder))
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config._attn_implementation = more.get("attn_implementation", config._attn_implementation)
        return kind.from_config(config) if kind.__name__.startswith("Auto") else kind(config)

    if (network := skeleton_of(made)) is None:
        raise CheckpointError(f"{folder}: no {_called(kind)} could be built from its configuration.")
    return network.to(dtype)


def _called(kind: type[PretrainedModel]) -> str:
    known = {"AutoModelForCausalLM": "causal language model", "AutoModel": "model"}
    name = str(kind.__name__)
    return known.get(name, f"model of {name}" if name.startswith("Auto") else name)


def open_speaker(
    folder: Path, dtype: torch.dtype, kind: str = "AutoModelForCausalLM", attention: str | None = None
) -> Any:
    """The model of `folder` that writes, as transformers' class `kind` makes it; see `open_network`."""
    more = {"attn_implementation": attention} if attention else {}
    return open_network(folder, kind, dtype, heads=True, **more)


def skeleton_of(make: Callable[[], Any]) -> Any | None:
    """Return the network that `make` builds, its weights without values; None where it cannot be built so.

    Then it is looked at when its weights are there.
    """
    with loading(), torch.device("meta"):
        try:
            return make()
        except (*FAULTS, NotImplementedError):
            return None
