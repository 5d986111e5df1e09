"""How pleasing a picture is, whatever its prompt: `mlp_head` with LAION's predictor, which its defaults describe."""

from mmalign.rewards.image.mlp_head import MLPHead

__all__ = ["MLPHead"]
