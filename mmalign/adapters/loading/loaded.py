"""What every diffusers family loads alike, and the members of an adapter that follow from it.

A family's dataclass holds its options, says in `load` what is its own (`load_into`), and takes the shared members into
its body by name (`save = _loaded.save`); what is left for its file is how prompts are encoded, how the network is
called, and its noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from mmalign.adapters.loading.conditions import Conditions
from mmalign.adapters.loading.decode import LatentImages
from mmalign.adapters.loading.described import Configs, Frame, sides_of
from mmalign.adapters.loading.lora import LoRA
from mmalign.adapters.loading.options import Dtype, Train, default_device, input_dtype, torch_dtype
from mmalign.adapters.loading.weights import Weights, make_trainable
from mmalign.core.errors import ConfigError
from mmalign.core.files import lasting
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Device, Module, Tensor
from mmalign.loading.pipelines import Origin, modules, open_pipeline, over_base
from mmalign.loading.trained import Base, named

ENCODERS = (
    "text_encoder",
    "projection_model",
    "language_model",
    "duration_embedder",
)  # name beginnings of what encodes prompts
DECODERS = ("vae", "vocoder")  # from latents to pictures or sound, in float32


class Autoencoder(Protocol):
    """Between latents and pictures or sound."""

    def decode(self, x: Tensor) -> Any:
        """Images (B, 3, H, W) nominally in [0, 1], or `Audio`; not clamped, with gradient to x."""
        ...

    def latents(self, output: Any) -> Tensor:
        """The mode of the latents of images in [0, 1] or of `Audio`, no gradient."""
        ...


@dataclass
class Loaded:
    """A checkpoint in its parts: the pipeline, what trains of it, cached conditions, and its autoencoder."""

    pipeline: Any
    weights: Weights
    conditions: Conditions
    autoencoder: Autoencoder


class Family(Protocol):
    """The options that all families share, and what `take` fills in."""

    model: str
    train: Train
    lora: LoRA
    dtype: Dtype
    device: Device | str | None
    gradient_checkpointing: bool
    offload_text_encoder: bool
    decode_rows: int
    cached_prompts: int
    revision: str | None
    variant: str | None
    pipeline_name: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]

    module: Module
    latent_shape: tuple[int, ...]
    loaded: Loaded

    def _encode_text(self, text: str) -> Condition: ...

    def _encode_negative(self) -> Condition: ...


class Told(Family, Protocol):
    """A family whose negative prompt is a text."""

    negative_prompt: str


class Pictures(Family, Protocol):
    """A family that makes pictures of a size, and says in `frame` of which; `load_into` fills in what is not given."""

    resolution: int | None
    height: int | None
    width: int | None


P = TypeVar("P", bound=Pictures)


def load_into(
    adapter: P,
    component: str,
    *,
    refuse: Callable[[Any], None] = lambda pipe: None,
    images: Callable[[Any, int, bool], Autoencoder] = LatentImages,
    absent: Collection[str] = (),
    optional: Collection[str] = (),
) -> P:
    """Read the checkpoint and place it: sets `device`, `height`, `width`, `latent_shape`, `module` and `loaded`.

    Args:
        adapter: with its options; returned.
        component: the pipeline's trained network.
        refuse: raises where the checkpoint cannot be used.
        images: made of the autoencoder, `decode_rows` and `gradient_checkpointing`.
        absent, optional: components, see `open_pipeline`.

    Raises:
        CheckpointError, ConfigError: naming what is at fault.
    """
    pipe = opened(adapter, component, absent=absent, optional=optional)
    refuse(pipe)
    found: Frame = type(adapter).frame(configs_of(pipe))  # type: ignore[attr-defined]
    scale = pipe.vae_scale_factor
    height, width = adapter.height, adapter.width = sides_of(adapter, found)
    adapter.latent_shape = (found.channels, height // scale, width // scale)
    take(adapter, pipe, component, images(pipe.vae, adapter.decode_rows, adapter.gradient_checkpointing))
    return adapter


def configs_of(pipe: Any) -> Configs:
    """The configurations of a pipeline's components."""

    def config(component: str) -> Mapping[str, Any]:
        return getattr(pipe, component).config  # type: ignore[no-any-return]

    return config


def opened(adapter: Family, component: str, *, absent: Collection[str] = (), optional: Collection[str] = ()) -> Any:
    """The adapter's pipeline on the CPU, every part in its dtype (what decodes in float32); sets `device`."""
    adapter.device = default_device(adapter.device)
    dtypes = dict.fromkeys(DECODERS, torch.float32)
    dtypes |= {"default": torch_dtype(adapter.dtype), component: input_dtype(adapter.train, adapter.dtype)}
    return open_pipeline(
        adapter.pipeline_name,
        _origin(adapter),
        dtypes,
        absent=absent,
        optional=optional,
        fitting=_fitting,
    )


def _origin(adapter: Family) -> Origin:
    return Origin(adapter.model, adapter.revision, adapter.variant)


def take(adapter: Family, pipe: Any, component: str, autoencoder: Autoencoder) -> None:
    """Make `component` of the pipeline trainable and place all parts: sets `module` and `loaded`."""
    device, network = default_device(adapter.device), getattr(pipe, component)
    origin = over_base(_origin(adapter))
    base = Base(lasting(origin.model), component, origin.revision, origin.variant)
    start = lasting(named(adapter.model))
    weights = make_trainable(adapter.train, pipe, base, adapter.lora, adapter.lora_targets, start)
    names = getattr(adapter, "unread", None)  # of a family that has such layers
    unread = tuple(names(network)) if names is not None else ()
    for name, parameter in network.named_parameters():
        if name.startswith(unread):  # gets no gradient, for which processes that train together would wait
            parameter.requires_grad_(False)
    if adapter.train != "frozen" and not weights.trainable():
        raise ConfigError(
            f"lora.target_modules: {', '.join(adapter.lora.placed(()))} names only layers whose output "
            "nothing reads; name others."
        )
    adapter.module = network.to(device)
    weights.turns.watch(adapter.module)
    if adapter.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    encoders = [part for name, part in modules(pipe).items() if name.startswith(ENCODERS)]
    conditions = Conditions(
        adapter._encode_text,
        adapter._encode_negative,
        encoders,
        device,
        adapter.offload_text_encoder,
        adapter.cached_prompts,
    )
    for name, part in modules(pipe).items():
        if name in DECODERS:
            part.to(device)
    adapter.loaded = Loaded(pipe, weights, conditions, autoencoder)


def encode_negative(self: Told) -> Condition:
    """The negative prompt, encoded as any text."""
    return self._encode_text(self.negative_prompt)


def reference(self: Family) -> AbstractContextManager[None]:
    """Inside it, `module` computes with the weights it started from."""
    return self.loaded.weights.reference()


def trainable(self: Family) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by name."""
    return self.loaded.weights.trainable()


def save(self: Family, directory: Path) -> None:
    """Write the LoRA file, or the network's folder (`base.json` beside it), that plain diffusers loads."""
    self.loaded.weights.save(directory)


def restore(self: Family, directory: Path) -> None:
    """Load what `save` wrote; raises CheckpointError where anything does not fit."""
    self.loaded.weights.restore(directory)


def unconditional(self: Family, rows: int) -> Condition:
    """Conditions of the negative prompt, with the entries that `encode` gives."""
    return self.loaded.conditions.unconditional(rows)


def guide(self: Family, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2207.12598) as most pipelines write it: u + scale (c - u)."""
    return unconditional + scale * (conditional - unconditional)


def decode(self: Family, x: Tensor) -> Any:
    """Images (B, 3, H, W) nominally in [0, 1], or `Audio`, of latents (B, *latent); not clamped, with gradient to x."""
    return self.loaded.autoencoder.decode(x)


def latents(self: Family, output: Any) -> Tensor:
    """The mode of the autoencoder's latents (B, *latent) for images (B, 3, H, W) in [0, 1] or `Audio`."""
    return self.loaded.autoencoder.latents(output)


def _fitting(pipeline: str) -> str:
    """Which adapter drives `pipeline`, read from the adapters themselves."""
    from mmalign.adapters import adapters

    fits = [name for name in adapters.names() if getattr(adapters.get(name), "pipeline_name", None) == pipeline]
    return f" Use adapter '{fits[0]}'." if fits else ""
