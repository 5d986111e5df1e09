"""Muon for the matrices of a model's layers, AdamW for everything else."""

from collections.abc import Iterable

import torch
from torch import nn


def build_optimizers(
    parts: Iterable[nn.Module], layers: Iterable[nn.Module], lr: float, decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """Both optimizers, with one rate: Muon's steps are scaled to the size of AdamW's.

    Args:
        parts: what is trained.
        layers: those of its modules whose matrices turn one vector into another; tables, as of positions, are none.
        lr: learning rate.
        decay: of weights, in both.
        betas: of AdamW.
    """
    matrices = [module.weight for part in layers for module in part.modules() if isinstance(module, nn.Linear)]
    taken = {id(weight) for weight in matrices}
    others = [weight for part in parts for weight in part.parameters() if id(weight) not in taken]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, weight_decay=decay, betas=betas),
    ]
