"""Where the frozen model of a reward computes."""

from __future__ import annotations

import torch


def settle(module: torch.nn.Module, inputs: torch.device) -> torch.device:
    """The device on which `module` computes for what lies on `inputs`, with `module` there.

    It follows its inputs to an accelerator and never leaves one for the CPU, where captions and files are.
    """
    place = next(module.parameters()).device
    if place == inputs or (inputs.type == "cpu" and place.type != "cpu"):
        return place
    module.to(inputs)
    return inputs
