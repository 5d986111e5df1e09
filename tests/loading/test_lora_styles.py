"""LoRAs by other programs' names: diffusers' own converters read them back as the same LoRA, alpha and all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmalign.core.errors import CapabilityError
from mmalign.loading.lora_files import LoRAFile
from mmalign.loading.lora_forms import LoRAPlace, read_lora
from mmalign.loading.lora_state import DOWN, UP, LoRAState, config_for
from mmalign.loading.lora_styles import styled

#: Layers with their inputs and outputs; a convolution has its kernel's side as a third number.
UNET = {
    "down_blocks.1.attentions.0.proj_in": (8, 8),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q": (8, 8),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k": (24, 8),
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0": (8, 8),
    "down_blocks.1.attentions.1.transformer_blocks.1.ff.net.0.proj": (8, 64),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_v": (16, 16),
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2": (64, 16),
    "up_blocks.0.attentions.2.proj_out": (8, 8),
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k": (8, 8),
}
CONVOLUTIONS = {
    "down_blocks.0.resnets.1.conv1": (8, 8, 3),
    "down_blocks.0.resnets.0.time_emb_proj": (32, 8),
    "up_blocks.0.resnets.0.conv_shortcut": (16, 8, 1),
    "mid_block.resnets.1.conv2": (8, 8, 3),
}
FLUX = {
    **{f"transformer_blocks.3.attn.{n}": (3072, 3072) for n in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")},
    "transformer_blocks.4.attn.to_k": (3072, 3072),
    "transformer_blocks.4.attn.add_v_proj": (3072, 3072),
    "transformer_blocks.4.ff.net.0.proj": (3072, 12288),
    "transformer_blocks.4.norm1_context.linear": (3072, 18432),
    **{f"single_transformer_blocks.7.attn.{n}": (3072, 3072) for n in ("to_q", "to_k", "to_v")},
    "single_transformer_blocks.8.proj_mlp": (3072, 12288),
    "single_transformer_blocks.8.proj_out": (15360, 3072),
}
QWEN = {
    "transformer_blocks.11.attn.to_q": (8, 8),
    "transformer_blocks.11.attn.add_k_proj": (8, 8),
    "transformer_blocks.11.attn.to_add_out": (8, 8),
    "transformer_blocks.0.attn.to_out.0": (8, 8),
    "transformer_blocks.0.img_mlp.net.0.proj": (8, 32),
    "transformer_blocks.0.txt_mod.1": (8, 48),
    "img_in": (4, 8),
}
CASES: dict[str, tuple[str, str, Mapping[str, tuple[int, ...]], dict[str, Any]]] = {
    "sd": ("StableDiffusionPipeline", "unet", {**UNET, **CONVOLUTIONS}, {"layers_per_block": 2}),
    "sdxl": ("StableDiffusionXLPipeline", "unet", UNET, {"layers_per_block": 2}),
    "flux": ("FluxPipeline", "transformer", FLUX, {"num_attention_heads": 24, "attention_head_dim": 128}),
    "qwen_image": ("QwenImagePipeline", "transformer", QWEN, {}),
}


def lora(layers: Mapping[str, tuple[int, ...]], **more: Any) -> LoRAState:
    """One of random matrices, layers of ranks 2 and 3 and of alphas of their own."""
    rng, tensors, ranks = torch.Generator().manual_seed(0), {}, {}
    for number, (layer, (wide, out, *kernel)) in enumerate(layers.items()):
        rank = ranks[layer] = 2 + number % 2
        tensors[layer + DOWN] = torch.randn(rank, wide, *kernel * 2, generator=rng)
        tensors[layer + UP] = torch.randn(out, rank, *[1 for _ in kernel * 2], generator=rng)
    alphas = {layer: 1.0 + number % 3 for number, layer in enumerate(layers)}
    return LoRAState("a test", tensors, config_for(ranks, alphas, **more))


def added(state: LoRAState) -> dict[str, Tensor]:
    """What it adds to every weight; a layer to which it adds nothing is left out."""
    made = {
        layer: state.scale(layer) * state.tensors[layer + UP].flatten(1) @ state.tensors[layer + DOWN].flatten(1)
        for layer in state.layers
    }
    return {layer: value for layer, value in made.items() if value.any()}


@pytest.mark.parametrize("family", CASES)
def test_kohyas_names_are_read_back_by_diffusers_as_the_same_lora(family: str, tmp_path: Path) -> None:
    import diffusers

    pipeline, component, layers, config = CASES[family]
    state = lora(layers)
    save_file(styled(state, pipeline, component, "kohya", config), tmp_path / "kohya.safetensors")
    place = LoRAPlace(component, getattr(diffusers, pipeline), config)
    again = read_lora(LoRAFile(tmp_path / "kohya.safetensors"), place)
    wanted, actual = added(state), added(again)
    assert actual.keys() == wanted.keys()
    for layer, value in wanted.items():
        torch.testing.assert_close(actual[layer], value, rtol=1e-5, atol=1e-5)
    if component == "unet":  # where diffusers hands alphas on, they stay what they were
        assert {layer: again.scale(layer) for layer in layers} == {layer: state.scale(layer) for layer in layers}
        assert all(again.rank(layer) == state.rank(layer) for layer in layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", CASES)
def test_without_alphas_the_scale_is_one_and_halves_are_read(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    import diffusers

    pipeline, component, layers, config = CASES[family]
    if family == "flux":  # q, k and v are one pair there, with their scales inside
        layers = {name: size for name, size in FLUX.items() if name.endswith(("to_out.0", "linear", "ff.net.0.proj"))}
    state = lora(layers)
    named = styled(state, pipeline, component, "kohya", config)
    bare = {key: value.to(dtype) for key, value in named.items() if not key.endswith(".alpha")}
    save_file(bare, tmp_path / "kohya.safetensors")
    again = read_lora(
        LoRAFile(tmp_path / "kohya.safetensors"), LoRAPlace(component, getattr(diffusers, pipeline), config)
    )
    for layer, value in added(again).items():
        wanted = state.tensors[layer + UP].to(dtype).float().flatten(1) @ state.tensors[layer + DOWN].to(
            dtype
        ).float().flatten(1)
        torch.testing.assert_close(value.float(), wanted, rtol=2e-2, atol=2e-2)
        assert again.scale(layer) == 1


def test_kohyas_alpha_is_the_scale_times_the_rank() -> None:
    state = lora(UNET, use_rslora=True)
    named = styled(state, "StableDiffusionPipeline", "unet", "kohya", {})
    assert len(named) == 3 * len(UNET)
    for layer in UNET:
        alpha = named[f"lora_unet_{layer.replace('.', '_')}.alpha"]
        assert alpha.shape == () and alpha / state.rank(layer) == pytest.approx(state.scale(layer))


def test_sdxls_blocks_are_named_as_its_authors_do() -> None:
    named = styled(lora(UNET), "StableDiffusionXLPipeline", "unet", "kohya", {"layers_per_block": 2})
    names = {key.partition(".")[0] for key in named}
    assert "lora_unet_input_blocks_5_1_transformer_blocks_0_attn2_to_out_0" in names  # as in kohya's own files
    assert {"lora_unet_middle_block_1_transformer_blocks_0_ff_net_2", "lora_unet_output_blocks_2_1_proj_out"} <= names


@pytest.mark.parametrize("pipeline", ["StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline"])
def test_comfyui_reads_diffusers_names_at_scale_one(pipeline: str, tmp_path: Path) -> None:
    import diffusers

    state = lora({"transformer_blocks.0.attn.to_q": (8, 8), "transformer_blocks.1.attn.to_k": (8, 8)})
    named = styled(state, pipeline, "transformer", "comfyui", {})
    assert all(key.startswith("transformer.") and not key.endswith("alpha") for key in named)
    save_file(named, tmp_path / "comfyui.safetensors")
    again = read_lora(
        LoRAFile(tmp_path / "comfyui.safetensors"), LoRAPlace("transformer", getattr(diffusers, pipeline))
    )
    assert all(again.scale(layer) == 1 for layer in again.layers)
    for layer, value in added(state).items():
        torch.testing.assert_close(added(again)[layer], value)


@pytest.mark.parametrize(
    ("pipeline", "style", "layers", "config", "message"),
    [
        ("SanaPipeline", "kohya", QWEN, {}, r"no names of kohya for SanaPipeline .* only for FluxPipeline, Qwen"),
        ("AudioLDMPipeline", "comfyui", UNET, {}, r"no names of comfyui for AudioLDMPipeline .*StableDiffusion3Pip"),
        ("StableDiffusion3Pipeline", "kohya", QWEN, {}, r"no names of kohya for StableDiffusion3Pipeline"),
        ("StableDiffusionXLPipeline", "kohya", CONVOLUTIONS, {"layers_per_block": 2}, r"has others: down_blocks\.0\.r"),
        (
            *("FluxPipeline", "kohya", {"single_transformer_blocks.0.attn.to_q": (8, 8), "x_embedder": (4, 8)}),
            *({"num_attention_heads": 1, "attention_head_dim": 8}, r"others: single_transformer_blocks\.0.*, x_embed"),
        ),
    ],
)
def test_what_a_program_has_no_name_for_is_refused(
    pipeline: str, style: Any, layers: Any, config: Any, message: str
) -> None:
    with pytest.raises(CapabilityError, match=message):
        styled(lora(layers), pipeline, "transformer", style, config)


def test_dora_has_no_place_in_pairs_of_matrices() -> None:
    with pytest.raises(CapabilityError, match=r"--as kohya: holds pairs of matrices only, and this LoRA has more"):
        styled(lora(UNET, use_dora=True), "StableDiffusionPipeline", "unet", "kohya", {})
