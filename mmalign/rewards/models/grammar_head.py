"""The grammar head of "Fine-grained Image Captioning with CLIP Reward" (Cho et al. 2022, arXiv 2205.13115).

Linear, ReLU, Linear to (ungrammatical, grammatical), without biases, on the text tower's features before their
projection; from safetensors as `N.weight`, by rising N. `pipelines/grammar_head.py` trains one, and writes down the
fingerprint of the CLIP model it was trained on: on another its answers mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import require_local
from mmalign.core.tensor import Tensor
from mmalign.rewards.models.clip_towers import Towers
from mmalign.rewards.models.frozen import Stamp, stamp
from mmalign.rewards.models.head import read_layers


@dataclass(frozen=True)
class GrammarHead:
    """P(grammatical) from pooled text features."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    name: str
    trained_on: str = ""  # fingerprint of the CLIP model; "" where the file does not say

    def of(self, towers: Towers, texts: Sequence[str]) -> Float[Tensor, " B"]:
        """P(grammatical) of texts. ConfigError on another CLIP model than the head's own."""
        if self.trained_on not in ("", towers.fingerprint):
            raise ConfigError(
                f"head: {self.name} was trained on the CLIP model {self.trained_on}, this one is {towers.fingerprint} "
                f"({towers.name}); name that one, or train a head for this one (python -m pipelines.grammar_head)."
            )
        with torch.no_grad():
            return self(towers.pooled_texts(texts))

    def __call__(self, features: Float[Tensor, "B W"]) -> Float[Tensor, " B"]:
        """P(grammatical) of each row, float32, on the features' device. ConfigError where the widths do not fit."""
        width = self.layers[0][0].shape[1]
        if features.shape[1] != width:
            raise ConfigError(
                f"head: {self.name} takes {width} features, but the text tower gives {features.shape[1]}; name the "
                "CLIP model that it was trained on."
            )
        x = features.float()
        for i, (weight, bias) in enumerate(self.layers):
            x = torch.nn.functional.linear(x.relu() if i else x, weight.to(x.device), bias.to(x.device))
        return x.softmax(1)[:, 1]

    def digest(self) -> str:
        """The digest that names the weights."""
        total = hashlib.sha256()
        for part in (part for layer in self.layers for part in layer):
            total.update(part.contiguous().numpy().tobytes())
        return total.hexdigest()[:16]


def load_grammar_head(head: str) -> GrammarHead:
    """The head in a safetensors file, read once while the file does not change.

    Raises:
        DataError: no such file, no safetensors, layers that do not fit, or not two outputs.
    """
    return _read(head, stamp(require_local(head)))


@lru_cache(maxsize=8)
def _read(head: str, stamp: Stamp) -> GrammarHead:
    from safetensors import safe_open

    path = require_local(head)
    layers = read_layers(path)
    if len(layers[-1][0]) != 2:
        raise DataError(
            f"{path}: the last layer gives {len(layers[-1][0])} numbers; a grammar head gives two (ungrammatical, "
            "grammatical)."
        )
    with safe_open(path, "pt") as file:
        trained_on = (file.metadata() or {}).get("clip", "")
    return GrammarHead(tuple((weight.float(), bias.float()) for weight, bias in layers), str(path), trained_on)
