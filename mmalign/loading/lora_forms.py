"""The forms that LoRAs come in, read into one: peft's, diffusers', and those that diffusers' own converters know.

| form | its keys | scale |
|---|---|---|
| peft | `base_model.model.<layer>.lora_A.weight` | `adapter_config.json` beside it |
| diffusers | `<component>.<layer>.lora_A.weight` | the file's header; alpha is the rank without one |
| kohya, ComfyUI, … | `lora_unet_<layer>.lora_down.weight`, `diffusion_model.…` | `<layer>.alpha` |

What a converter would drop without a word (another component's matrices, DoRA's scales, differences of norms) is
refused first: half a LoRA is another LoRA.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmalign.core.errors import CheckpointError
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.loading.foreign import Pipeline
from mmalign.loading.lora_files import PEFT_CONFIG, LoRAFile
from mmalign.loading.lora_state import DOWN, LoRAState, PeftConfig, check_pairs, config_for, named_keys
from mmalign.loading.networks import FAULTS
from mmalign.loading.texts import open_peft_config

PEFT_PREFIX = "base_model.model."
METADATA = "lora_adapter_metadata"  # diffusers' name for the configuration in the file's header
_TEXT = (
    "lora_te_",
    "lora_te1_",
    "lora_te2_",
    "lora_te3_",
    "text_encoder.",
    "text_encoder_2.",
    "text_encoder_3.",
    "text_encoders.",
)
_OTHER_KINDS = (".lokr_", ".hada_", ".lora_mid.", ".oft_", ".glora_", ".on_input")  # of LyCORIS
_DROPPED = ("dora_scale", "diff_b", ".diff", "position_embedding")  # by diffusers' converters
_HALVES = (("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight"), (".down.weight", ".up.weight"))
_REBUILT = ("pissa", "olora", "corda", "loftq", "lora_ga")  # beginnings of peft's ways that change the base weights


@dataclass(frozen=True)
class LoRAPlace:
    """What a LoRA is read for: a `component` of a `pipeline` class of diffusers (with its `config`), or any network."""

    component: str = ""
    pipeline: Pipeline = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read_lora(file: LoRAFile, place: LoRAPlace) -> LoRAState:
    """Read a LoRA of any form, whole.

    Raises:
        CheckpointError: its keys are of no known form, of another component, or incomplete.
    """
    from safetensors.torch import load_file

    source, tensors = str(file.weights), load_file(file.weights)
    if not tensors:
        raise CheckpointError(f"{source}: holds no tensors.")
    _check_kinds(source, tensors)
    _check_halves(source, tensors)
    if file.config is not None:
        state = LoRAState(source, _without(tensors, PEFT_PREFIX), _peft_config(file.config))
    elif hasattr(place.pipeline, "lora_state_dict"):
        state = _of_diffusers(file.weights, tensors, place)
    else:
        raise CheckpointError(
            f"{source}: a LoRA of this model is in peft's form, whose {PEFT_CONFIG} lies beside "
            "adapter_model.safetensors and says rank and scale; name that folder."
        )
    check_pairs(source, state.tensors)
    return state


def _check_kinds(source: str, tensors: Mapping[str, Tensor]) -> None:
    others = [key for key in tensors if any(part in key for part in _OTHER_KINDS)]
    if others:
        raise CheckpointError(
            f"{source}: {len(others)} of {len(tensors)} keys are of another method than LoRA (LoKr, LoHa, …): "
            f"{named_keys(others)}; make a LoRA of it where it was trained."
        )
    dropped = [key for key, value in tensors.items() if any(p in key for p in _DROPPED) and bool(value.any())]
    if dropped:
        raise CheckpointError(
            f"{source}: {len(dropped)} of {len(tensors)} keys are what diffusers leaves out (DoRA's scales, "
            f"differences of norms or biases): {named_keys(dropped)}; without them it is another LoRA."
        )
    texts = [key for key in tensors if key.startswith(_TEXT)]
    if texts:
        raise CheckpointError(
            f"{source}: {len(texts)} of {len(tensors)} keys are of text encoders, which do not train here: "
            f"{named_keys(texts)}; write a file without them, or a pipeline with the LoRA in it "
            "(load_lora_weights, fuse_lora, unload_lora_weights, save_pretrained of diffusers), and name that as model."
        )


def _check_halves(source: str, tensors: Mapping[str, Tensor]) -> None:
    missing = [
        theirs
        for down, up in _HALVES
        for mine, other in ((down, up), (up, down))
        for key in tensors
        if key.endswith(mine) and (theirs := key.removesuffix(mine) + other) not in tensors
    ]
    if missing:
        raise CheckpointError(
            f"{source}: {len(missing)} of the matrices that belong in pairs are missing: {named_keys(missing)}; "
            "copy or download the file again."
        )


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def _peft_config(file: Path) -> PeftConfig:
    config = open_peft_config(file.parent)
    how = getattr(config, "init_lora_weights", True)
    if isinstance(how, str) and how.startswith(_REBUILT):
        raise CheckpointError(
            f"{file}: was begun by {how}, which takes a part out of the base's weights; convert it where it was trained"
            " (save_pretrained(…, path_initial_model_for_weight_conversion=…) of peft)."
        )
    return config


def _of_diffusers(file: Path, tensors: dict[str, Tensor], place: LoRAPlace) -> LoRAState:
    """What the pipeline class's own `lora_state_dict` makes of the tensors, in peft's names."""
    source, prefix = str(file), f"{place.component}."
    converted, alphas = _converted(source, tensors, place)
    foreign = [key for key in converted if not key.startswith(prefix)]
    if foreign:
        raise CheckpointError(
            f"{source}: {len(foreign)} of {len(converted)} keys do not belong to the {place.component} of "
            f"{place.pipeline.__name__}: {named_keys(foreign)}; it is a LoRA of another model, or in a form that "
            "diffusers has no converter of for this one."
        )
    state = _without(converted, prefix)
    ranks = {key.removesuffix(DOWN): int(value.shape[0]) for key, value in state.items() if key.endswith(DOWN)}
    if not ranks or unpaired(state):
        raise CheckpointError(f"{source}: is no LoRA that diffusers reads: {named_keys(unpaired(state) or state)}.")
    config = _header_config(file, prefix)
    if config is None:
        own = {layer: alphas.get(layer, rank) for layer, rank in ranks.items()}
        config = config_for(ranks, own, use_dora=any("lora_magnitude_vector" in key for key in state))
    return LoRAState(source, state, config)


def unpaired(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys that are no part of a LoRA as peft names it."""
    return sorted(key for key in state if ".lora_" not in key)


def _converted(source: str, tensors: dict[str, Tensor], place: LoRAPlace) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors by diffusers' names, and the alpha of each layer that has its own."""
    read = place.pipeline.lora_state_dict
    more: dict[str, Any] = {}
    if place.component == "unet":
        more = {"unet_config": SimpleNamespace(**place.config) if place.config else None}
    elif "return_alphas" in inspect.signature(read).parameters:
        more = {"return_alphas": True}
    mixed = [key for key in tensors if key.startswith(f"{place.component}.")]
    if mixed and len(mixed) < len(tensors):  # converters take one form and leave the other
        others = sorted(tensors.keys() - set(mixed))
        raise CheckpointError(
            f"{source}: {len(others)} of {len(tensors)} keys do not belong to '{place.component}': "
            f"{named_keys(others)}."
        )
    with loading():
        from diffusers.utils import convert_unet_state_dict_to_peft

        try:
            result = read(dict(tensors), **more)
            state, alphas = result if isinstance(result, tuple) else (result, None)
            if not any(".lora_A" in key for key in state):
                state = convert_unet_state_dict_to_peft(state)
        except (*FAULTS, AssertionError, IndexError, NotImplementedError) as error:
            words = " ".join(str(error).split())[:400]
            raise CheckpointError(
                f"{source}: no LoRA of {place.pipeline.__name__}, as far as diffusers' converter reads it: {words}"
            ) from error
    return state, {_layer(key, place.component): float(value) for key, value in (alphas or {}).items()}


def _layer(alpha_key: str, component: str) -> str:
    """The layer that a converter's key of an alpha is of; of attention it stands there with what follows it."""
    name = alpha_key.removeprefix(f"{component}.").removesuffix(".alpha").replace(".processor.", ".")
    for before in (".lora.down.weight", "_lora.down.weight", ".lora_down.weight", ".lora_A.weight"):
        name = name.removesuffix(before)
    return f"{name}.0" if name.endswith(".to_out") else name


def _header_config(file: Path, prefix: str) -> PeftConfig:
    """peft's configuration as diffusers writes it into the header; None where it stands there not."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        text = (opened.metadata() or {}).get(METADATA)
    if text is None:
        return None
    with loading():
        from peft import LoraConfig

        try:
            entries = {key.removeprefix(prefix): v for key, v in json.loads(text).items() if key.startswith(prefix)}
            return LoraConfig(**entries) if entries else None
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file}: its header's {METADATA} is no configuration of peft: {error}") from error
