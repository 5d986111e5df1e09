"""The LoRA that training starts from: read from wherever it lies, put together, and laid on a network.

| `freeze_start` | what trains | the reference |
|---|---|---|
| false | the LoRA itself | the LoRA as it came |
| true | a fresh LoRA beside it | the LoRA as it came, which stays |

Either way the first policy is the reference. With `train: full` it is merged into the weights, which then train.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from mmalign.core.errors import CheckpointError, ConfigError, MmalignWarning
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.foreign import PretrainedModel
from mmalign.loading.lora_files import lora_file
from mmalign.loading.lora_forms import LoRAPlace, read_lora
from mmalign.loading.lora_state import LoRAState, joined, named_keys

log = logging.getLogger("mmalign")
START = "start_lora"  # peft's name for the adapter that stays as it is, beside the "default" that trains


@dataclass
class StartLoRA:
    """A LoRA to start from.

    `path`: a run directory (its newest checkpoint), RUN@STEP, a folder of diffusers' or peft's, a .safetensors file, or
    a Hub id. `weight`: what its part is multiplied with.
    """

    path: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        faults = [] if self.path else ["path: is empty; name a run, a folder, a .safetensors file or a Hub id."]
        if not math.isfinite(self.weight) or self.weight == 0:
            faults.append(f"weight: {self.weight:g} adds nothing; leave the LoRA out, or give another weight.")
        if faults:
            raise ConfigError(faults)


Starts: TypeAlias = str | StartLoRA | list[str | StartLoRA] | None  # as run files write them


def starts_of(start: Starts) -> list[StartLoRA]:
    """Return what `start_lora` names, one by one."""
    several = start if isinstance(start, list) else [start] if start else []
    return [StartLoRA(each) if isinstance(each, str) else each for each in several]


def read_start(
    starts: Sequence[StartLoRA], place: LoRAPlace, revision: str | None = None, fetch: bool = True
) -> LoRAState | None:
    """Read the LoRAs to start from as one; None where there are none, or one of the Hub may not be fetched.

    A single one at weight 1 is as it came; others are put together at scale 1.

    Raises:
        CheckpointError: one of them is missing, incomplete, or not for this place.
    """
    files = [lora_file(start.path, revision, fetch) for start in starts]
    states = [read_lora(file, place) for file in files if file is not None]
    if not states or len(states) < len(starts):
        return None
    weights = [start.weight for start in starts]
    return states[0] if weights == [1.0] else joined(states, weights)


def tell_start(state: LoRAState, rank: int, default: int, frozen: bool) -> None:
    """Log what the start is; warn where `lora.rank`, set to something of its own, is not the rank it has."""
    log.info("start_lora: %s: %s; %s", state.source, state.described(), "frozen" if frozen else "goes on training")
    ranks = {state.rank(layer) for layer in state.layers if f"{layer}.lora_A.weight" in state.tensors}
    if not frozen and rank != default and ranks != {rank}:
        warnings.warn(
            f"lora.rank: {rank}, but {state.source} has {state.described()}, and it is the one that trains; leave "
            "lora.rank out, or set freeze_start: true for a fresh LoRA of that rank beside it.",
            MmalignWarning,
            stacklevel=3,
        )


def lay_on(network: PretrainedModel, state: LoRAState, name: str = "default", whole: Sequence[str] = ()) -> None:
    """Add the LoRA to `network` under peft's `name`, its matrices in float32.

    The modules of `network` that `whole` names train whole beside it, from what they are where the LoRA brings none.

    Raises:
        CheckpointError: it does not fit the network, key by key.
    """
    from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict

    config = state.config
    config.inference_mode = False
    config.base_model_name_or_path = None  # peft would look there for the size of a vocabulary
    if whole:
        config.modules_to_save = list(whole)
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # all of it is read; other ways change the base
    try:
        with loading(), torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, network, adapter_name=name)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{state.source}: does not fit {type(network).__name__}: {error}") from error
    for parameter in parameters_of(network, name):
        parameter.data = parameter.data.float()
    beside = tuple(f"{each}." for each in whole)
    # peft itself saves embeddings beside a LoRA on them
    more = any(".lora_" not in key and not key.startswith(beside) for key in state.tensors)
    own = get_peft_model_state_dict(network, adapter_name=name, save_embedding_layers="auto" if more else False)
    tensors = {key: value for key, value in own.items() if key.startswith(beside)} if beside else {}
    tensors |= state.tensors
    check_fit(state.source, tensors, own)
    set_peft_model_state_dict(network, tensors, adapter_name=name)


def check_fit(source: object, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless `tensors`, read from `source`, have exactly the keys and shapes of `own`."""
    for what, keys in (
        ("this model does not have", tensors.keys() - own.keys()),
        ("it lacks", own.keys() - tensors.keys()),
    ):
        if keys:
            raise CheckpointError(
                f"{source}: {len(keys)} LoRA keys that {what}, the first is '{min(keys)}'"
                f"{f'; all: {named_keys(keys)}' if len(keys) > 1 else ''}. "
                "Use the base model and lora.target_modules it was trained with."
            )
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            rank = min(value.shape[:2])
            raise CheckpointError(
                f"{source}: '{key}' is {tuple(value.shape)} and this model's is {tuple(own[key].shape)}. "
                f"Set lora.rank to what it was trained with ({rank}?) and use the same base model."
            )


def parameters_of(network: torch.nn.Module, name: str) -> Iterator[torch.nn.Parameter]:
    """Yield the parameters of the adapter `name`."""
    for key, parameter in network.named_parameters():
        if f".{name}." in key or key.endswith(f".{name}"):
            yield parameter


def lay_frozen(network: PretrainedModel, state: LoRAState) -> None:
    """Add the LoRA to `network` so that it is used and does not train, beside the "default" that does, if there is one.

    peft lets the adapter that was added last train alone, so what trains is set here.
    """
    from peft.utils.other import ModulesToSaveWrapper

    live = list(parameters_of(network, "default"))
    trained = {id(parameter) for parameter in live if parameter.requires_grad}
    lay_on(network, state, START)
    use_adapters(network, [START, "default"])
    for part in network.modules():
        if isinstance(part, ModulesToSaveWrapper):  # trains whole, of the adapter that trains alone
            part.set_adapter("default")
    for parameter in (*live, *parameters_of(network, START)):
        parameter.requires_grad_(id(parameter) in trained)


def lay_whole(network: PretrainedModel, state: LoRAState, merged: bool) -> None:
    """Add the LoRA to a `network` that trains otherwise or not at all; `merged` into its weights, or beside them."""
    lay_on(network, state)
    network.requires_grad_(False)
    if merged:
        merge_adapters(network)


def use_adapters(network: torch.nn.Module, names: Sequence[str]) -> None:
    """Let every layer of `network` add the parts of the adapters of these names that it has, and no others."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module._active_adapter = list(names)


def merge_adapters(network: PretrainedModel) -> None:
    """Add the parts of all adapters to the weights of `network`, and leave nothing else of them.

    Raises:
        CheckpointError: the sums are not finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    for name, part in list(network.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):
            network.set_submodule(name, part.modules_to_save[part.active_adapters[0]])
    layers = {name: part for name, part in network.named_modules() if isinstance(part, BaseTunerLayer)}
    for name, layer in layers.items():
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise CheckpointError(f"{name}: the LoRA cannot be merged into it: {error}") from error
        network.set_submodule(name, layer.get_base_layer())
    del network.peft_config
