"""The image tower of a saved open_clip model as the vision model of transformers that computes the same."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Names of open_clip, and what transformers calls the same.
_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
    "transformer.resblocks": "encoder.layers",
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def vision_weights(folder: Path) -> "dict[str, torch.Tensor]":
    """Weights for a ``CLIPVisionModel`` of the same shape; the projection to the shared space is left out."""
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for name, value in load_file(folder / "open_clip_model.safetensors").items():
        if not name.startswith("visual.") or name == "visual.proj":
            continue
        renamed = name.removeprefix("visual.")
        for theirs, ours in _NAMES.items():
            renamed = renamed.replace(theirs, ours)
        if "in_proj" in renamed:
            layer, _, kind = renamed.rpartition("attn.in_proj_")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                weights[f"{layer}self_attn.{part}_proj.{kind}"] = piece.clone()
        else:
            weights[renamed] = value
    return weights
