"""The trainable network of MusicGen."""

from __future__ import annotations

from typing import Any

import torch

from mmalign.adapters.tokens.network import call_with_past
from mmalign.loading.foreign import PretrainedModel


class MusicGenDecoder(torch.nn.Module):
    """A MusicGen whose forward is its decoder's, up to the heads; no dropout, ever."""

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.model = model
        for part in model.decoder.modules():
            for name in ("dropout", "activation_dropout", "attention_dropout", "layerdrop"):
                if isinstance(getattr(part, name, None), float | int):
                    setattr(part, name, 0.0)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the decoder's weights."""
        return self.model.decoder.lm_heads[0].weight.dtype

    def forward(self, **inputs: object) -> tuple[torch.Tensor, Any]:
        """Return hidden states (B, t, D) and the cache."""
        out, past = call_with_past(self.model.decoder.model, inputs)
        return out.last_hidden_state, past

    def heads(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (…, K, V) of hidden states (…, D), one head per codebook."""
        return torch.stack([head(hidden) for head in self.model.decoder.lm_heads], -2)
