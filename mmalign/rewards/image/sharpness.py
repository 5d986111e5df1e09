"""How crisp a picture is: the mean size of its Laplacian. The smallest complete reward; copy it to start your own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmalign.core.types import Rollout, Scores

__all__ = ["Sharpness"]


@dataclass
class Sharpness:
    """Mean absolute Laplacian of the grey picture, in [0, 4]; differentiable. Noise is sharp too: never use it alone.

    Args:
        channel_weights: of red, green and blue in the grey value; ITU-R BT.601's.
    """

    channel_weights: tuple[float, float, float] = (0.299, 0.587, 0.114)
    modalities = frozenset({"image"})  # what it can judge
    range = (0.0, 4.0)  # what its values lie in; the floor is what a malformed output would score
    differentiable = True  # gradient reaches the pixels
    deterministic = True  # equal pictures, equal values: scores may be cached

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B pictures (B, 3, H, W)."""
        images = rollout.output.float()
        grey = (images * images.new_tensor(self.channel_weights)[:, None, None]).sum(1, keepdim=True)
        laplacian = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
        return Scores.of(torch.nn.functional.conv2d(grey, laplacian).abs().mean((1, 2, 3)))
