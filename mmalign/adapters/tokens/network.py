"""The network of a language model: its last linear layer by itself, and the cache of keys and values by either name.

Logits of a whole batch are the largest tensor of training (8 × 2,048 positions × 152,000 words are 10 GB in float32).
Families scale or bound them after the layer; what this file does about it is compared with the model at load time,
and a model that does something else is asked for its logits as a whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from mmalign.core.tensor import Tensor
from mmalign.loading.foreign import Cache, PretrainedModel

Head = Callable[[Tensor], Tensor]


class Network(torch.nn.Module):
    """A language model whose forward gives hidden states and the cache, or (not `split`) logits in their place."""

    def __init__(self, model: PretrainedModel) -> None:
        super().__init__()
        self.model = model
        self.split = self._splits()

    def forward(self, **inputs: object) -> tuple[Tensor, Cache]:
        """Return hidden states (B, t, D), or logits where not `split`, and the cache (None without `use_cache`)."""
        if not self.split:
            out, past = call_with_past(self.model, inputs)
            return out.logits, past
        out, past = call_with_past(self.model.base_model, inputs)
        return out.last_hidden_state, past

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits (…, V) of hidden states (…, D)."""
        return _finish(self.model)(self.model.get_output_embeddings()(hidden)) if self.split else hidden

    @torch.no_grad()
    def _splits(self) -> bool:
        """Does the head, applied to the backbone's hidden states, give the model's own logits?"""
        model = self.model
        if model.base_model is model or model.get_output_embeddings() is None:
            return False
        device = model.get_input_embeddings().weight.device
        if device.type == "meta":  # without weights there is nothing to compare
            return True
        ids = torch.arange(4, device=device)[None]
        own = model(input_ids=ids, use_cache=False).logits.float()
        hidden = getattr(model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None)
        if hidden is None:
            return False
        made = _finish(model)(model.get_output_embeddings()(hidden)).float()
        return made.shape == own.shape and bool((made - own).norm() <= 1e-3 * own.norm())


def _finish(model: PretrainedModel) -> Head:
    """What the family does to logits after its last layer: soft bound (Gemma), factor (Cohere), divisor (Granite)."""
    config = model.config.get_text_config()
    if bound := getattr(config, "final_logit_softcapping", None):
        return lambda logits: torch.tanh(logits / bound) * bound
    if (factor := getattr(config, "logit_scale", None)) is not None:
        return lambda logits: logits * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return lambda logits: logits / divisor
    return lambda logits: logits


OLD, NEW = "past_key_values", "cache"


def call_with_past(network: PretrainedModel, inputs: Mapping[str, object]) -> tuple[Any, Any]:
    """Call `network(**inputs)`: its output, and its keys and values; `inputs` may hold some as `past_key_values`."""
    name = _name_of(type(network).forward)
    out = network(**{name if key == OLD else key: value for key, value in inputs.items()})
    return out, out[NEW] if NEW in out else out.get(OLD)


@lru_cache(maxsize=64)
def _name_of(forward: Callable[..., Any]) -> str:
    return NEW if NEW in inspect.signature(forward).parameters else OLD
