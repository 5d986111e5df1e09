"""laion-clap's original weights: renamed for transformers' ClapModel, or run by laion-clap itself.

The architecture is read from the tensors' shapes (HTSAT-tiny, -base or -large; fused or not), so that a file is enough.
Names: Wu et al. 2023 (arXiv 2211.06687) use `audio_branch` (HTSAT) and `text_branch` (RoBERTa) with projections of two
layers; ClapModel splits `qkv` in three and calls a block's parts as Swin's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import DataError, MissingExtra
from mmalign.core.tensor import Tensor
from mmalign.loading.exclusive import loading
from mmalign.rewards.models.pickled import read_pickled, tensors_of

_RENAMED = (  # in this order
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"^(text|audio)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(text|audio)_projection\.2\.", r"\1_projection.linear2."),
    (r"audio_encoder\.bn0\.", "audio_encoder.batch_norm."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(blocks\.\d+)\.attn\.(qkv|relative_position_bias_table)", r"\1.attention.self.\2"),
)
# Of the classifier and of the front end, which ClapModel has not; and buffers that it makes itself.
_UNUSED = re.compile(
    r"_transform\.|spectrogram_extractor|logmel_extractor|tscam_conv|audio_branch\.head|audio_branch\.fc_|"
    r"relative_position_index|attn_mask|position_ids|token_type_ids|num_batches_tracked"
)
_SIZES = {96: "HTSAT-tiny", 128: "HTSAT-base", 192: "HTSAT-large"}  # by the width of the first patch embedding


def read_original(file: Path) -> dict[str, Tensor]:
    """The state dict in laion-clap's names. `.pt` is read by torch's restricted reader, which runs no code.

    Raises:
        DataError: unreadable (the message names the command that converts), or not a CLAP.
    """
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(file)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file}: damaged ({error}); copy or download it again.") from None
    else:
        content = read_pickled(file)
    try:
        tensors, _ = tensors_of(content)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    state = {key.removeprefix("module."): value for key, value in tensors.items()}
    if "audio_branch.patch_embed.proj.weight" not in state or "text_projection.2.weight" not in state:
        raise DataError(f"{file}: lacks audio_branch and text_projection; these are not laion-clap's weights.")
    return state


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in ClapModel's names."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if _UNUSED.search(key):
            continue
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        if ".self.qkv." in key:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            tensors |= {key.replace("qkv", part): rows.clone() for part, rows in parts}
        else:
            tensors[key] = value
    return tensors


def as_clap_model(state: Mapping[str, Tensor]) -> Any:
    """A ClapModel with these weights. DataError naming what does not fit."""
    with loading():
        from transformers import ClapModel

        model = ClapModel(_config(state))
    tensors = renamed(state)
    wanted = {key for key in model.state_dict() if not _UNUSED.search(key)}
    if odd := sorted(wanted ^ set(tensors)):
        raise DataError(f"the weights are no CLAP that ClapModel knows: {len(odd)} names differ, first {odd[0]}.")
    model.load_state_dict(tensors, strict=False)
    return model


def _config(state: Mapping[str, Tensor]) -> Any:
    from transformers import ClapConfig

    audio, text = "audio_branch.", "text_branch."
    blocks = {tuple(map(int, m.groups())) for key in state if (m := re.search(r"layers\.(\d+)\.blocks\.(\d+)\.", key))}
    depths = [sum(layer == number for layer, _ in blocks) for number in range(1 + max(layer for layer, _ in blocks))]
    tables = [state[f"{audio}layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in range(len(depths))]
    patch, bands = state[f"{audio}patch_embed.proj.weight"].shape, len(state[f"{audio}bn0.weight"])
    words = state[f"{text}embeddings.word_embeddings.weight"].shape
    layers = {int(m[1]) for key in state if (m := re.search(r"^text_branch\.encoder\.layer\.(\d+)\.", key))}
    fused = any("mel_conv2d" in key for key in state)
    return ClapConfig(
        audio_config={
            "num_mel_bins": bands,
            "spec_size": 4 * bands,
            "window_size": (round(tables[0][0] ** 0.5) + 1) // 2,
            "patch_size": patch[2],
            "patch_stride": [patch[2], patch[2]],
            "patch_embeds_hidden_size": patch[0],
            "hidden_size": len(state[f"{audio}norm.weight"]),
            "depths": depths,
            "num_attention_heads": [shape[1] for shape in tables],
            "num_hidden_layers": len(depths),
            "enable_fusion": fused,
            "fusion_type": "aff_2d" if fused else None,
        },
        text_config={
            "vocab_size": words[0],
            "hidden_size": words[1],
            "num_hidden_layers": len(layers),
            "num_attention_heads": max(words[1] // 64, 1),  # RoBERTa's heads are 64 wide
            "intermediate_size": len(state[f"{text}encoder.layer.0.intermediate.dense.bias"]),
            "max_position_embeddings": len(state[f"{text}embeddings.position_embeddings.weight"]),
            "type_vocab_size": len(state[f"{text}embeddings.token_type_embeddings.weight"]),
            "layer_norm_eps": 1e-5,  # RoBERTa's; ClapConfig's default is BERT's
        },
        projection_dim=len(state["text_projection.2.bias"]),
    )


def packaged(file: Path) -> tuple[Any, Callable[[Tensor], Tensor], Callable[[list[str], torch.device], Tensor]]:
    """laion-clap's own module with the weights of `file`, and its two encoders.

    Windows of exactly 480,000 samples leave nothing to its random crop, and `use_tensor=True` keeps the gradient
    (without it sound makes a round trip through 16-bit integers).

    Raises:
        MissingExtra: laion-clap is not installed.
        DataError: a file that is not its weights.
    """
    try:
        with loading():
            import laion_clap
    except (ImportError, OSError):  # OSError: it reads tokenizers from the Hub while it is imported
        what = "backend: laion (in an environment of its own, for it wants numpy below 2)"
        raise MissingExtra(what, "laion") from None
    state = read_original(file)
    width = len(state["audio_branch.patch_embed.proj.weight"])
    if width not in _SIZES:
        raise DataError(f"{file}: patch embeddings {width} wide; laion-clap has {', '.join(map(str, _SIZES))}.")
    fused = any("mel_conv2d" in key for key in state)
    with loading():
        module = laion_clap.CLAP_Module(enable_fusion=fused, device="cpu", amodel=_SIZES[width], tmodel="roberta")
    # Newer transformers keep position_ids out of the state dict; nothing else may differ.
    report = module.model.load_state_dict({k: v for k, v in state.items() if "position_ids" not in k}, strict=False)
    if odd := [key for key in (*report.missing_keys, *report.unexpected_keys) if "position_ids" not in key]:
        raise DataError(f"{file}: {len(odd)} names differ from laion-clap's {_SIZES[width]}, first {odd[0]}.")

    def encode_waves(part: Tensor) -> Tensor:
        return module.get_audio_embedding_from_data(x=part, use_tensor=True)

    def encode_texts(texts: list[str], device: torch.device) -> Tensor:
        # One text alone comes back without its batch axis, so a second goes along.
        features = module.get_text_embedding([*texts, ""], use_tensor=True)
        return torch.as_tensor(features)[: len(texts)].to(device)

    return module, encode_waves, encode_texts
