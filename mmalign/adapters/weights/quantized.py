"""Frozen linear layers in fewer bits, beside a LoRA that trains in float32.

| `quantize` | bits a weight | by |
|---|---|---|
| nf4 | 4.1, twice quantised | bitsandbytes (QLoRA, 2305.14314) |
| int8 | 8, a scale for each output | torchao |
| fp8 | 8, e4m3, a scale for each output | torchao |

Weights alone are quantised. With activations quantised, too, what a row comes to would depend on the rows beside it,
and the replay of an output would not be what sampled it.

The layers are those of the network's repeated blocks. What stands outside (embeddings, projections of noise levels and
patches, heads) is a small share of the weights and most of the error, and keeps its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from mmalign.core.errors import ConfigError, MissingExtra, importable
from mmalign.core.packages import need
from mmalign.core.tensor import Module, Tensor

Quantization = Literal["none", "nf4", "int8", "fp8"]

#: The package that computes with each.
PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
EXTRA = "quantized"
#: Bits of a weight, scales included: of rows of a thousand inputs or more.
BITS = {"nf4": 4.13, "int8": 8.03, "fp8": 8.03}


@dataclass(frozen=True)
class Quantized:
    """What was quantised: `layers` of `linear` frozen linear layers, the network's bytes `before` and `after`.

    `error` is the root mean square of what the layers' weights lost, relative to that of the weights.
    """

    kind: Quantization
    layers: int
    linear: int
    before: int
    after: int
    error: float

    def __str__(self) -> str:
        return (
            f"quantize: {self.kind}: {self.layers} of {self.linear} frozen linear layers (those of the repeated "
            f"blocks), {self.before / 1e6:.4g} → {self.after / 1e6:.4g} MB; their weights differ by {self.error:.2%}"
        )


def refuse_quantized(kind: Quantization, train: str, dora: bool) -> list[str]:
    """Give a sentence for each option that `quantize` does not go with."""
    faults = []
    if kind != "none" and train == "full":
        faults.append(f"quantize: {kind}, but train: full updates all weights, which have few bits then; train a lora.")
    if kind != "none" and dora:
        faults.append(f"quantize: {kind}, but lora.use_dora rescales the weights themselves; set it to false.")
    return faults


def missing_package(kind: Quantization) -> MissingExtra | None:
    """Return the fault of a package that `kind` needs and that is not there."""
    package = PACKAGES.get(kind)
    if package is None or importable(package):
        return None
    return MissingExtra(f"quantize: {kind} (package {package})", EXTRA)


def quantize(network: Module, kind: Quantization, device: torch.device, dtype: torch.dtype) -> Quantized:
    """Quantise the frozen linear layers of the blocks of `network`, one by one, and put those on `device`.

    Args:
        network: on the CPU, with its LoRA; what trains and the rest stay as they are, where they are.
        kind: not "none".
        device: where the layers are quantised and stay.
        dtype: in which they compute.

    Raises:
        MissingExtra: the package is not installed.
        ConfigError: the network has no such layer.
    """
    if (missing := missing_package(kind)) is not None:
        raise missing
    layers, linear = block_layers(network)
    if not layers:
        raise ConfigError(f"quantize: {kind}: {type(network).__name__} has no frozen linear layer in repeated blocks.")
    before = stored_bytes(network)
    lost = total = 0.0
    for name, layer in layers.items():
        layer.to(device)
        weight = layer.weight.detach()
        made = _four_bit(layer, dtype) if kind == "nf4" else _eight_bit(layer, kind)
        lost += float((_dequantized(made) - weight).float().square().sum())
        total += float(weight.float().square().sum())
        if made is not layer:
            network.set_submodule(name, made)
    return Quantized(kind, len(layers), linear, before, stored_bytes(network), (lost / max(total, 1e-30)) ** 0.5)


def keep_own_frozen(module: Module) -> None:
    """Let each process that trains `module` keep the frozen weights it read: DDP sends no quantised ones around."""
    from torch.nn.parallel import DistributedDataParallel

    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, frozen)


def block_layers(network: Module) -> tuple[dict[str, torch.nn.Linear], int]:
    """Return the frozen linear layers of the repeated blocks by name, and how many frozen ones there are in all."""
    blocks = tuple(f"{name}." for name, part in network.named_modules() if isinstance(part, torch.nn.ModuleList))
    frozen = {
        name: part
        for name, part in network.named_modules()
        if type(part) is torch.nn.Linear and not part.weight.requires_grad and ".lora_" not in name
    }
    return {name: part for name, part in frozen.items() if name.startswith(blocks)}, len(frozen)


def stored_bytes(network: Module) -> int:
    """Return the bytes of the network's parameters as they are stored, the scales of quantised ones included."""
    return sum(sum(part.numel() * part.element_size() for part in _parts(p)) for p in network.parameters())


def _parts(parameter: Tensor) -> list[Tensor]:
    """The plain tensors that a parameter consists of."""
    if type(parameter.data) is not torch.Tensor and hasattr(parameter, "__tensor_flatten__"):
        names, _ = parameter.__tensor_flatten__()
        return [part for name in names for part in _parts(getattr(parameter, name))]
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return [parameter]
    beside = [state.absmax, state.code]
    if state.nested:
        beside += [state.state2.absmax, state.state2.code, state.offset]
    return [parameter, *beside]


def _four_bit(layer: torch.nn.Linear, dtype: torch.dtype) -> Module:
    """A layer of bitsandbytes with the weights of `layer` in normal floats of four bits."""
    library = need("bitsandbytes").nn
    with torch.device("meta"):
        made = library.Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
        )
    weight = library.Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    made.weight, made.bias = weight.to(layer.weight.device), layer.bias
    made.weight.module = made  # which keeps how to read it, where the parameter itself is moved
    return made.requires_grad_(False).eval()


def _eight_bit(layer: torch.nn.Linear, kind: Quantization) -> torch.nn.Linear:
    """The layer itself, its weights in eight bits."""
    library = need("torchao.quantization")
    config = library.Int8WeightOnlyConfig() if kind == "int8" else library.Float8WeightOnlyConfig()
    library.quantize_(layer, config)
    return layer.requires_grad_(False)


def _dequantized(layer: Any) -> Tensor:
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        plain: Tensor = layer.weight.dequantize()
    else:
        plain = need("bitsandbytes").functional.dequantize_4bit(layer.weight.data, state)
    return plain


__all__ = [
    "BITS",
    "Quantization",
    "Quantized",
    "block_layers",
    "missing_package",
    "quantize",
    "refuse_quantized",
    "stored_bytes",
]
