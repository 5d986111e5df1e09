"""LoRAs by the names of other programs: kohya's scripts and ComfyUI. diffusers' converters read them back.

| family | kohya | ComfyUI |
|---|---|---|
| Stable Diffusion 1 and 2 | `lora_unet_` and the layer's name, `.` as `_` | the same |
| SDXL | `lora_unet_` and the layer's name in the U-Net of its authors | the same |
| FLUX | `lora_unet_` and the names of its authors, q, k and v in one | diffusers' names, scale 1 |
| Qwen-Image | `lora_unet_` and the layer's name, `.` as `_` | diffusers' names, scale 1 |
| Stable Diffusion 3 | | diffusers' names, scale 1 |

kohya's files say alpha beside each pair (`<layer>.alpha`), and programs add (alpha / rank) B A. Sources: the converters
in `diffusers.loaders.lora_conversion_utils`, and ComfyUI's `comfy/lora.py` (github.com/comfyanonymous/ComfyUI).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.loading.lora_files import first_of
from mmalign.loading.lora_state import DOWN, UP, LoRAState

Style = Literal["kohya", "comfyui"]
Pairs = dict[str, Tensor]


def styled(state: LoRAState, pipeline: str, component: str, style: Style, config: Mapping[str, Any]) -> Pairs:
    """Return the tensors of a LoRA by the names of another program.

    Args:
        state: the LoRA of a pipeline's trained network.
        pipeline: the class of diffusers.
        component: the network's name in it.
        style: whose names.
        config: of the network.

    Raises:
        CapabilityError: the program has no names for this family, or no place for what the LoRA holds.
    """
    if not state.plain or getattr(state.config, "use_dora", False):
        raise CapabilityError(
            f"--as {style}: holds pairs of matrices only, and this LoRA has more (DoRA); take --as peft, diffusers or "
            "merged."
        )
    if pipeline not in pipelines_of(style):
        raise CapabilityError(
            f"--as {style}: there are no names of {style} for {pipeline} that diffusers reads back, only for "
            f"{', '.join(pipelines_of(style))}; take --as peft, diffusers or merged."
        )
    if (pipeline, style) in _NAMED:
        return _NAMED[pipeline, style](state, config)
    return {f"{component}.{key}": value for key, value in at_scale_one(state).items()}


def pipelines_of(style: Style) -> list[str]:
    """Return the classes of diffusers whose LoRAs can be written by the names of a program."""
    plain = _AT_SCALE_ONE if style == "comfyui" else ()
    return sorted({name for name, of in _NAMED if of == style} | {*plain})


def at_scale_one(state: LoRAState) -> Pairs:
    """Return the matrices with the scale in B, for programs that read no alpha."""
    return {
        key: value.float() * state.scale(key.removesuffix(UP)) if key.endswith(UP) else value.float()
        for key, value in state.tensors.items()
    }


def _pair(name: str, down: Tensor, up: Tensor, scale: float) -> Pairs:
    """A pair with its alpha, which is the scale times the rank."""
    alpha = torch.tensor(scale * down.shape[0])
    return {
        f"{name}.lora_down.weight": down.float().contiguous(),
        f"{name}.lora_up.weight": up.float().contiguous(),
        f"{name}.alpha": alpha,
    }


def _renamed(state: LoRAState, name_of: Callable[[str], str]) -> Pairs:
    made: Pairs = {}
    for layer in state.layers:
        name = f"lora_unet_{name_of(layer).replace('.', '_')}"
        made |= _pair(name, state.tensors[layer + DOWN], state.tensors[layer + UP], state.scale(layer))
    return made


def _flat(state: LoRAState, config: Mapping[str, Any]) -> Pairs:
    return _renamed(state, str)


def _of_sdxl(state: LoRAState, config: Mapping[str, Any]) -> Pairs:
    """Blocks counted through as in the U-Net of SDXL's authors: of each resnet and attention, and each resampling."""
    layers_per_block = int(config["layers_per_block"])
    other = [layer for layer in state.layers if not _ATTENTION.match(layer)]
    if other:
        raise CapabilityError(
            f"kohya's names of SDXL are written here for layers of attention blocks, and this LoRA has others: "
            f"{first_of(other)}; take --as peft, diffusers or merged."
        )

    def name_of(layer: str) -> str:
        match = _ATTENTION.match(layer)
        assert match is not None
        where, block, index, rest = match.groups()
        if where == "mid":
            return f"middle_block.1.{rest}"
        if where == "down":
            return f"input_blocks.{1 + int(block) * (layers_per_block + 1) + int(index)}.1.{rest}"
        return f"output_blocks.{int(block) * (layers_per_block + 1) + int(index)}.1.{rest}"

    return _renamed(state, name_of)


_ATTENTION = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.attentions\.(\d+)\.(.+)")

#: Layers of a double block of FLUX, each its author's name; and what is one layer there.
_DOUBLE = {
    "attn.to_out.0": "img_attn_proj",
    "ff.net.0.proj": "img_mlp_0",
    "ff.net.2": "img_mlp_2",
    "norm1.linear": "img_mod_lin",
    "attn.to_add_out": "txt_attn_proj",
    "ff_context.net.0.proj": "txt_mlp_0",
    "ff_context.net.2": "txt_mlp_2",
    "norm1_context.linear": "txt_mod_lin",
}
_DOUBLE_FUSED = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE = {"proj_out": "linear2", "norm.linear": "modulation_lin"}
_SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
_FLUX_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")
_FLUX_WIDTH = 3072  # of FLUX.1; the converter knows no other for single blocks


def _of_flux(state: LoRAState, config: Mapping[str, Any]) -> Pairs:
    """Blocks by their authors' names, the LoRAs of q, k and v as one whose matrices are zero between them."""
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    blocks: dict[tuple[str, int], list[str]] = {}
    other = []
    for layer in state.layers:
        match = _FLUX_BLOCK.fullmatch(layer)
        single = match is not None and bool(match[1])
        known = {*_SINGLE, *_SINGLE_FUSED["linear1"]} if single else {*_DOUBLE, *sum(_DOUBLE_FUSED.values(), ())}
        if (
            match is None
            or match[3] not in known
            or (single and match[3] in _SINGLE_FUSED["linear1"] and width != _FLUX_WIDTH)
        ):
            other.append(layer)
            continue
        blocks.setdefault(("single" if single else "double", int(match[2])), []).append(layer)
    if other:
        raise CapabilityError(
            f"--as kohya: kohya's names of FLUX are of its blocks' layers, at FLUX.1's own width ({_FLUX_WIDTH}), "
            f"and this LoRA has others: {first_of(other)}; take --as comfyui, peft, diffusers or merged."
        )
    made: Pairs = {}
    for (kind, number), _ in sorted(blocks.items()):
        prefix = f"{'single_' if kind == 'single' else ''}transformer_blocks.{number}."
        single_names, fused = (_SINGLE, _SINGLE_FUSED) if kind == "single" else (_DOUBLE, _DOUBLE_FUSED)
        target = f"lora_unet_{kind}_blocks_{number}_"
        for own, name in single_names.items():
            if (layer := prefix + own) + DOWN in state.tensors:
                made |= _pair(target + name, state.tensors[layer + DOWN], state.tensors[layer + UP], state.scale(layer))
        for name, parts in fused.items():
            widths = [width, width, width, 4 * width][: len(parts)]
            made |= _fused(state, target + name, [prefix + part for part in parts], widths)
    return made


def _fused(state: LoRAState, name: str, layers: Sequence[str], widths: Sequence[int]) -> Pairs:
    """The LoRAs of layers that are one layer elsewhere, their outputs below each other, as one of their summed rank.

    Each gets the largest rank among them, padded with zeros, and the scale in its B: whoever splits it splits evenly.
    """
    there = [layer for layer in layers if layer + DOWN in state.tensors]
    if not there:
        return {}
    rank, like = max(map(state.rank, there)), state.tensors[there[0] + DOWN]
    downs, ups = [], []
    for layer, width in zip(layers, widths, strict=True):
        down, up = like.new_zeros(rank, like.shape[1]), like.new_zeros(width, rank)
        if layer in there:
            own = state.rank(layer)
            down[:own] = state.tensors[layer + DOWN]
            up[:, :own] = state.tensors[layer + UP] * state.scale(layer)
        downs.append(down)
        ups.append(up)
    return _pair(name, torch.cat(downs), torch.block_diag(*ups), 1.0)


_NAMED: dict[tuple[str, str], Callable[[LoRAState, Mapping[str, Any]], Pairs]] = {
    ("StableDiffusionPipeline", "kohya"): _flat,
    ("StableDiffusionPipeline", "comfyui"): _flat,
    ("StableDiffusionXLPipeline", "kohya"): _of_sdxl,
    ("StableDiffusionXLPipeline", "comfyui"): _of_sdxl,
    ("FluxPipeline", "kohya"): _of_flux,
    ("QwenImagePipeline", "kohya"): _flat,
}
_AT_SCALE_ONE = ("FluxPipeline", "QwenImagePipeline", "StableDiffusion3Pipeline")  # which ComfyUI reads as they are
