"""What every adapter around a published checkpoint shares: options, where it is placed, and what of it trains."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args, get_type_hints

import torch

from mmalign.adapters.weights.lora import LoRA
from mmalign.adapters.weights.quantized import Quantization, keep_own_frozen, quantize, refuse_quantized
from mmalign.adapters.weights.reference import TrainedWeights
from mmalign.adapters.weights.start import Starts, read_start, starts_of, tell_start
from mmalign.core.device import fastest
from mmalign.core.errors import CapabilityError, ConfigError, MmalignError
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.tensor import Device, Module
from mmalign.core.types import Prompt
from mmalign.loading.foreign import PretrainedModel
from mmalign.loading.lora_files import lora_file
from mmalign.loading.lora_forms import LoRAPlace
from mmalign.loading.lora_state import LoRAState, check_layers

log = logging.getLogger("mmalign")

Train = Literal["lora", "full", "frozen"]  # frozen: judges and generators inside rewards


Dtype = Literal["fp32", "bf16", "fp16"]


_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class NotLoaded(MmalignError, AttributeError):
    """A part of an adapter was used before `load()`; an AttributeError, so `hasattr` answers False until then."""


def not_loaded(adapter: PretrainedAdapter, name: str) -> NoReturn:
    """Body of an adapter's `__getattr__`: say that `load()` comes first, or that there is no such attribute."""
    kind = type(adapter)
    if any(name in vars(each).get("__annotations__", {}) for each in kind.__mro__):
        raise NotLoaded(f"{kind.__name__}.{name} is not there yet: call load() first (model: {adapter.model}).")
    raise AttributeError(f"'{kind.__name__}' has no attribute '{name}'")


def torch_dtype(name: Dtype) -> torch.dtype:
    """Return the torch dtype that the option names."""
    dtype: torch.dtype = getattr(torch, _DTYPES[name])
    return dtype


def default_device(named: torch.device | str | None) -> torch.device:
    """Return the device that is `named`, or the fastest there is where that is None."""
    return fastest() if named is None else torch.device(named)


def mixed_precision(device: torch.device, dtype: Dtype) -> AbstractContextManager[None]:
    """Switch autocast to `dtype`, or off for fp32: what surrounds the adapter never changes what it computes."""
    return torch.autocast(device.type, dtype=torch_dtype(dtype), enabled=dtype != "fp32")


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch autocast off, whatever surrounds it."""
    return torch.autocast(device.type, enabled=False)


def input_dtype(train: Train, dtype: Dtype) -> torch.dtype:
    """Return the dtype of the network's frozen weights, and hence of its inputs: float32 where all of it trains."""
    return torch.float32 if train == "full" else torch_dtype(dtype)


def check_positive(component: object) -> None:
    """Raise ConfigError naming every option of a dataclass that is typed as positive and is not.

    Run files are checked before; this is for what is made in Python.
    """
    faults = [
        f"{name}: {value:g} is not a positive number."
        for name in _positive(type(component))
        if (value := getattr(component, name)) is not None and not value > 0
    ]
    if faults:
        raise ConfigError(faults)


def _positive(kind: type[Any]) -> tuple[str, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(f.name for f in fields(kind) if {AtLeastOne, Positive} & {hints[f.name], *get_args(hints[f.name])})


def texts_only(prompts: Sequence[Prompt], family: str) -> list[str]:
    """Return the texts of prompts; CapabilityError where one says more (media, turns) than `family` reads."""
    for row, prompt in enumerate(without_media(prompts, family)):
        if prompt.messages:
            raise CapabilityError(
                f"row {row}: the prompt is a conversation of {len(prompt.messages)} messages and '{family}' reads one "
                "text; name a column of texts."
            )
    return [prompt.text for prompt in prompts]


def without_media(prompts: Sequence[Prompt], family: str) -> Sequence[Prompt]:
    """Return the prompts; CapabilityError where one carries media that `family` would have to ignore."""
    for row, prompt in enumerate(prompts):
        if prompt.media:
            place = prompt.place or f"row {row}"
            raise CapabilityError(
                f"{place}: the prompt carries media ({', '.join(prompt.media)}) and '{family}' reads text only."
            )
    return prompts


@dataclass
class PretrainedAdapter(ABC):
    """`Adapter` of a checkpoint that `load` reads; an option written here is an option of every family.

    Args:
        model: a Hub id, a folder, or "assets/…".
        train: "lora", "full", or "frozen" (inside a reward); trained weights are float32.
        lora: of a fresh LoRA, without dropout; the family's own choice of layers unless it names others.
        start_lora: a LoRA to start from, which is the reference then: a run directory, RUN@STEP, a folder, a
            .safetensors file or a Hub id, {path, weight}, or a list of them. It goes on training with the rank, scale
            and layers it has, and `lora` is unused; with train: full it is merged first.
        freeze_start: leave start_lora as it is, and train a fresh `lora` beside it; what is saved is both as one LoRA.
        quantize: the bits of the frozen layers of the network's blocks: "none" for those of dtype, "nf4", "int8" or
            "fp8" (the extra `quantized`); for train: lora and frozen.
        dtype: of frozen weights and of the network's arithmetic (autocast).
        device: where to compute; the launch's, else the fastest there is, unless it is named.
        gradient_checkpointing: recompute the network's layers in backward.
        cached_prompts: prompts whose encodings are kept, on the CPU.
        revision: of the Hub's files.
    """

    model: str
    train: Train = "lora"
    lora: LoRA = field(default_factory=LoRA)
    start_lora: Starts = None
    freeze_start: bool = False
    quantize: Quantization = "none"
    dtype: Dtype = "fp32"
    device: Device | str | None = None
    gradient_checkpointing: bool = False
    cached_prompts: AtLeastOne = 512
    revision: str | None = None

    start: LoRAState | None = field(
        default=None, init=False, repr=False, compare=False
    )  # of `start_lora`, while loading
    module: Module = field(init=False, repr=False, compare=False)
    weights: TrainedWeights = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(self)
        if faults := refuse_quantized(self.quantize, self.train, self.lora.use_dora):
            raise ConfigError(faults)
        if self.freeze_start and (not self.start_lora or self.train != "lora"):
            why = "names nothing to freeze: there is no start_lora" if not self.start_lora else "is of train: lora"
            raise ConfigError(f"freeze_start: {why}; leave it out.")
        if self.freeze_start and self.lora.use_dora:
            raise ConfigError(
                "freeze_start: what is saved is both LoRAs as one, and DoRA's do not add up; set lora.use_dora: false."
            )

    if not TYPE_CHECKING:  # which knows the attributes that there are

        def __getattr__(self, name: str) -> Any:
            not_loaded(self, name)

    @property
    def name(self) -> str:
        """What run files call this adapter: a name is a file."""
        return type(self).__module__.rpartition(".")[2]

    def load(self, device: Device | str | None = None) -> Self:
        """Read the checkpoint and place it on the option `device`, on the `device` given where that is None.

        Raises:
            CheckpointError: weights that are missing, damaged or of another family.
            CapabilityError, ConfigError: a checkpoint that this adapter cannot drive, or not with these options.
        """
        place = default_device(device if self.device is None else self.device)
        self.device = place
        self.start = self.read_start()
        if self.start is not None and self.train == "lora":
            tell_start(self.start, self.lora.rank, LoRA().rank, self.freeze_start)
        self.load_parts(place)
        self.start = None
        self.weights.lock.watch(self.module)
        return self

    @abstractmethod
    def load_parts(self, device: torch.device) -> None:
        """Read the checkpoint and place it on `device`: set `module`, `weights`, and what else the family has."""

    def lora_place(self) -> LoRAPlace:
        """Return what a LoRA to start from is read for; any of peft's, unless a family knows more."""
        return LoRAPlace()

    def skeleton(self, fetch: bool = False) -> Module | None:
        """Return the network that a LoRA goes on, without weights; None where its configuration is not to be had.

        `fetch`: the configuration may be downloaded.
        """
        return None

    def read_start(self, fetch: bool = True) -> LoRAState | None:
        """Read `start_lora` before any weight of the model is, as one LoRA; None where there is none.

        `fetch`: of the Hub; without it None, too, where one of them is of the Hub.

        Raises:
            CheckpointError: it is missing, incomplete, or of another model.
        """
        starts = starts_of(self.start_lora)
        state = read_start(starts, self.lora_place(), self.revision, fetch) if starts else None
        if state is not None and (network := self.skeleton(fetch)) is not None:
            check_layers(state, network)
        return state

    def start_files(self) -> list[tuple[Path, float]]:
        """List the files of `start_lora` that are on this machine, each with the weight of its LoRA."""
        starts = starts_of(self.start_lora)
        files = [(lora_file(start.path, self.revision, fetch=False), start.weight) for start in starts]
        return [(path, w) for file, w in files if file is not None for path in (file.weights, file.config) if path]

    def placed(self, network: Module, device: torch.device) -> Module:
        """Put `network`, with what trains of it, on `device`, its frozen layers in the bits of `quantize`."""
        if self.quantize != "none":
            log.info("%s", quantize(network, self.quantize, device, torch_dtype(self.dtype)))
        return network.to(device)

    def wrap(self, prepare: Callable[[Module], Module]) -> None:
        """Put what a launcher makes of `module` in its place, for instance DDP's, which averages gradients."""
        if self.quantize != "none":
            keep_own_frozen(self.module)
        self.module = prepare(self.module)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `module` computes with the weights it started from."""
        return self.weights.reference()

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters by name, float32."""
        return self.weights.trainable()

    def save(self, directory: Path) -> None:
        """Write what plain diffusers, transformers or peft loads."""
        self.weights.save(directory)

    def trained_network(self) -> PretrainedModel:
        """Return what a LoRA lies on."""
        return self.module

    def write_model(self, directory: Path) -> None:
        """Write all of the model as it computes now, for plain diffusers or transformers; no LoRA may lie on it."""
        raise CapabilityError(f"adapter '{self.name}' writes no whole model; take what `save` writes.")

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote; raises CheckpointError where anything does not fit."""
        self.weights.restore(directory)
