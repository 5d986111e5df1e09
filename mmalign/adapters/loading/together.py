"""Weights that a batch does not read, in processes that train together.

Such processes wait for the gradient of every weight that trains. A batch without pictures or sounds leaves the tower
that reads them out of its graph, and some models never read their tower's last layers: a process would end with an
error, or wait for ever. Here these weights enter the graph with the factor 0, and get the gradient 0.
"""

from __future__ import annotations

from typing import Any

import torch

from mmalign.core.tensor import Tensor


def with_towers(value: Tensor, model: Any) -> Tensor:
    """`value` itself, whose graph holds every weight of `model` that trains outside its language model."""
    if not torch.is_grad_enabled():
        return value
    language = {id(weight) for weight in model.get_decoder().parameters()}
    towers = [p for p in model.parameters() if p.requires_grad and id(p) not in language]
    if not towers:
        return value
    return value + 0.0 * torch.stack([weight.flatten()[0] for weight in towers]).sum().to(value.dtype)
