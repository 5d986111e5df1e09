"""Whole checkpoints with one thing taken away or added."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def weights_of(folder: Path) -> list[Path]:
    """The folders inside `folder` (or itself) that hold safetensors."""
    return sorted({file.parent for file in folder.rglob("*.safetensors")})


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of the first weight file in `folder`."""
    file = min(folder.glob("*.safetensors"))
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
    state = load_file(file)
    change(state)
    file.unlink()  # a copied folder may share its files
    save_file(state, file, told)


def without_one(folder: Path) -> str:
    """Remove the tensor in the middle; returns its name."""
    gone: list[str] = []

    def change(state: dict[str, torch.Tensor]) -> None:
        floats = sorted(name for name, value in state.items() if value.is_floating_point() and value.dim())
        gone.append(floats[len(floats) // 2])
        del state[gone[0]]

    rewrite(folder, change)
    return gone[0]


def told(file: Path, **more: Any) -> None:
    """Add entries to a JSON file, which is made where there is none."""
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | more))
