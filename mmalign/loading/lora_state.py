"""One LoRA as peft names it: its matrices and the configuration they are added with; several of them as one.

Layer l adds scale_l B_l A_l to its weight, A_l (r, in, …) and B_l (out, r, …), scale alpha / r or alpha / sqrt(r). So
LoRAs side by side are one of their summed rank: A stacked, the B of each times its scale beside each other, scale 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from mmalign.core.errors import CheckpointError
from mmalign.core.tensor import Tensor
from mmalign.loading.lora_files import first_of

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
PeftConfig: TypeAlias = Any  # of peft: LoraConfig, or another of its methods


@dataclass(frozen=True)
class LoRAState:
    """The `tensors` of a LoRA by peft's names, without the adapter's, its `config`, and the `source` errors name."""

    source: str
    tensors: Mapping[str, Tensor]
    config: PeftConfig

    @property
    def layers(self) -> list[str]:
        """The names of the layers it goes to."""
        return sorted({key.partition(".lora_")[0] for key in self.tensors if ".lora_" in key})

    @property
    def plain(self) -> bool:
        """Is it nothing but pairs of matrices?"""
        return all(key.endswith((DOWN, UP)) for key in self.tensors)

    def rank(self, layer: str) -> int:
        """Return the rank of a layer's matrices."""
        return int(self.tensors[layer + DOWN].shape[0])

    def scale(self, layer: str) -> float:
        """Return what B A of a layer is multiplied with."""
        return scale_of(self.config.to_dict(), layer, self.rank(layer))

    def described(self) -> str:
        """Say its ranks, scales and number of layers in words."""
        layers = [layer for layer in self.layers if layer + DOWN in self.tensors]
        ranks, scales = (sorted({each(layer) for layer in layers}) for each in (self.rank, self.scale))
        shown = [", ".join(f"{value:g}" for value in values) for values in (ranks, scales)]
        return f"{len(self.layers)} layers of rank {shown[0]}, scale {shown[1]}"


def scale_of(config: Mapping[str, Any], layer: str, rank: float) -> float:
    """Return alpha / rank (with rsLoRA alpha / sqrt(rank)) of a layer by the entries of a LoRA's configuration."""
    alpha = _of_layer(config.get("alpha_pattern") or {}, layer, config["lora_alpha"])
    return float(alpha) / float(rank) ** (0.5 if config.get("use_rslora") else 1.0)


def rank_of(config: Mapping[str, Any], layer: str) -> int:
    """Return the rank of a layer by the entries of a LoRA's configuration."""
    return int(_of_layer(config.get("rank_pattern") or {}, layer, config["r"]))


def _of_layer(pattern: Mapping[str, Any], layer: str, usual: Any) -> Any:
    """The entry of peft's `pattern` that the layer's name matches, as peft matches it."""
    from peft.utils.other import get_pattern_key

    return pattern.get(get_pattern_key(pattern.keys(), layer), usual)


def config_for(ranks: Mapping[str, int], alphas: Mapping[str, float], **more: Any) -> PeftConfig:
    """Return peft's configuration of a LoRA on the layers of `ranks`, each of its own rank and alpha."""
    from peft import LoraConfig

    rank, alpha = (Counter(values).most_common(1)[0][0] for values in (ranks.values(), alphas.values()))
    return LoraConfig(
        r=rank,
        lora_alpha=_whole(alpha),
        rank_pattern={f"^{re.escape(layer)}": own for layer, own in ranks.items() if own != rank},
        alpha_pattern={f"^{re.escape(layer)}": _whole(own) for layer, own in alphas.items() if own != alpha},
        target_modules=exactly(list(ranks)),
        **more,
    )


def exactly(layers: Sequence[str]) -> str:
    """Return peft's `target_modules` for these layers and no others.

    peft takes a listed name for every layer whose name ends with it, and a pattern for those that it matches whole.
    """
    return "|".join(re.escape(layer) for layer in sorted(layers))


def _whole(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def check_pairs(source: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where one matrix of a pair is missing, or the two have different ranks."""
    alone = sorted(
        other
        for key in tensors
        for mine, theirs in ((DOWN, UP), (UP, DOWN))
        if key.endswith(mine) and (other := key.removesuffix(mine) + theirs) not in tensors
    )
    if alone:
        raise CheckpointError(
            f"{source}: {len(alone)} of the matrices that belong in pairs are missing: {first_of(alone)}; "
            "copy or download the file again."
        )
    unlike = [
        f"{key.removesuffix(DOWN)} ({value.shape[0]} and {tensors[key.removesuffix(DOWN) + UP].shape[1]})"
        for key, value in sorted(tensors.items())
        if key.endswith(DOWN) and value.shape[0] != tensors[key.removesuffix(DOWN) + UP].shape[1]
    ]
    if unlike:
        raise CheckpointError(f"{source}: the two matrices of a layer have different ranks: {first_of(unlike)}.")


def check_layers(state: LoRAState, network: torch.nn.Module) -> None:
    """Raise CheckpointError unless every layer of a LoRA is one of `network` and as wide; only shapes are looked at."""
    parts = dict(network.named_modules())
    kind = type(network).__name__
    unknown = [layer for layer in state.layers if layer not in parts]
    if unknown:
        raise CheckpointError(
            f"{state.source}: {len(unknown)} of its {len(state.layers)} layers are not in this {kind}: "
            f"{first_of(unknown)}; it is a LoRA of another model or component, so name that one's."
        )
    unlike = []
    for layer in state.layers:
        weight = getattr(parts[layer], "weight", None)
        if weight is None or layer + DOWN not in state.tensors:
            continue
        down, up = state.tensors[layer + DOWN].shape, state.tensors[layer + UP].shape
        own = tuple(weight.shape)
        turned = type(parts[layer]).__name__ == "Conv1D"  # GPT-2's, (in, out)
        width = (own[1], own[0]) if turned else (own[0], own[1])
        if (up[0], down[1]) != width or down[2:] != own[2:]:
            unlike.append(f"{layer} ({down[1]} to {up[0]}, this model's {width[1]} to {width[0]})")
    if unlike:
        raise CheckpointError(
            f"{state.source}: {len(unlike)} of its {len(state.layers)} layers have other widths than this {kind}'s: "
            f"{first_of(unlike)}; it is a LoRA of another size of this model."
        )


def joined(
    states: Sequence[LoRAState], weights: Sequence[float], scales: Mapping[str, float] | None = None
) -> LoRAState:
    """Return one LoRA that adds what all of them add, each times its weight; layer by layer at its scale, or at 1.

    Raises:
        CheckpointError: one of them is more than pairs of matrices (DoRA, biases, embeddings), which do not add up.
    """
    for state in states:
        if not state.plain or getattr(state.config, "use_dora", False):
            extra = sorted(key for key in state.tensors if not key.endswith((DOWN, UP)))
            raise CheckpointError(
                f"{state.source}: holds more than pairs of matrices ({first_of(extra, 3) or 'DoRA'}), which cannot be "
                "put together with others, weighted or frozen: let it go on training alone, or merge it into its model."
            )
    tensors: dict[str, Tensor] = {}
    scales = scales or {}
    for layer in sorted({layer for state in states for layer in state.layers}):
        pairs = [
            (state, weight) for state, weight in zip(states, weights, strict=True) if layer + DOWN in state.tensors
        ]
        tensors[layer + DOWN] = torch.cat([state.tensors[layer + DOWN].float() for state, _ in pairs])
        tensors[layer + UP] = torch.cat(
            [
                state.tensors[layer + UP].float() * (state.scale(layer) * weight / scales.get(layer, 1.0))
                for state, weight in pairs
            ],
            1,
        )
    ranks = {key.removesuffix(DOWN): int(value.shape[0]) for key, value in tensors.items() if key.endswith(DOWN)}
    alphas = {layer: rank * scales.get(layer, 1.0) for layer, rank in ranks.items()}
    return LoRAState(" + ".join(state.source for state in states), tensors, config_for(ranks, alphas))


def named_keys(keys: Collection[str], most: int = 20) -> str:
    """List keys in their order, up to `most` of them."""
    return first_of(sorted(keys), most)
