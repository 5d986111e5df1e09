"""Weights that fit a network exactly: a tensor that its file lacks would otherwise be drawn at random, unsaid.

What a class ties, computes itself or has renamed, transformers and diffusers take out of their report; what stays in
it is a fault, but for parts that nobody reads here (`spare`) and heads of another task on the same backbone (`heads`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import CheckpointError, MmalignWarning

_COUNTERS = r"num_batches_tracked$"  # of batch normalisation in training; evaluation does not read it


def check_complete(
    folder: Path, network: torch.nn.Module, report: Mapping[str, Any], spare: Collection[str] = (), heads: bool = False
) -> None:
    """Raise CheckpointError unless the weights of `folder` are those of `network`, no fewer, no more.

    Args:
        folder: of the component, for the message.
        network: as loaded.
        report: `missing_keys`, `unexpected_keys`, `mismatched_keys` as the libraries' `output_loading_info` gives them.
        spare: patterns of names that may be missing or over, of parts that nobody reads or that are read apart.
        heads: whole modules that `network` has not may stand in the file (a warning says so).
    """
    kind = type(network).__name__
    known = re.compile("|".join((_COUNTERS, *spare)))
    missing = sorted(key for key in report["missing_keys"] if not known.search(key))
    over = sorted(key for key in report["unexpected_keys"] if not known.search(key))
    if odd := [key for key in (*over, *missing) if ".base_layer." in key or ".lora_" in key]:
        raise CheckpointError(
            f"{folder}: was saved with a LoRA still attached ('{odd[0]}'); load it where it was made, call "
            "fuse_lora() and then unload_lora_weights(), and save it again."
        )
    faults = [f"{len(missing)} tensors of {kind} are missing, the first is '{missing[0]}'"] if missing else []
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, shape, wanted = mismatched[0]
        faults.append(
            f"{len(mismatched)} tensors have another shape than {kind}'s, the first is '{name}': {tuple(shape)} "
            f"instead of {tuple(wanted)}"
        )
    foreign = [key for key in over if not heads or _inside(key, network)]
    if foreign:
        faults.append(f"{len(foreign)} tensors are not {kind}'s, the first is '{foreign[0]}'")
    if faults:
        raise CheckpointError(f"{folder}: {'; '.join(faults)}. Copy or download it again, with its config.json.")
    if over:
        warnings.warn(
            f"{folder}: {len(over)} tensors of parts that {kind} does not have are left out, the first is '{over[0]}'.",
            MmalignWarning,
            stacklevel=3,
        )


def _inside(key: str, network: torch.nn.Module) -> bool:
    """Does `key` lie in a module that `network` has (at its top or in its backbone)?"""
    prefix = getattr(network, "base_model_prefix", "")
    backbone = getattr(network, prefix, network) if prefix else network
    tops = {name for name, _ in network.named_children()} | {name for name, _ in backbone.named_children()}
    first, _, rest = key.partition(".")
    return (rest.partition(".")[0] if first == prefix and rest else first) in tops
