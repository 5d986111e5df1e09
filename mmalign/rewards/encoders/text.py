"""Unit embeddings of texts by any text encoder of transformers (sentence encoders, BERT's kin, language models)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.device import fastest
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import local_path
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout
from mmalign.loading.exclusive import loaded_once
from mmalign.loading.files import check_size, read_json
from mmalign.loading.folders import network_folder
from mmalign.loading.networks import open_network
from mmalign.loading.texts import open_tokenizer
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.frozen import Stamp, beside_digest, stamp, weight_files, weights_digest
from mmalign.rewards.models.texts import KeptTexts, Tokens, whole_length

__all__ = ["TextEncoder"]

Pooling = Literal["auto", "mean", "first", "last"]
_SENTENCE = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
}
_PLAIN = ("Transformer", "Pooling", "Normalize")


@dataclass
class TextEncoder:
    """Hidden states of a text pooled into one row, L2-normalised, float32; each distinct text is encoded once.

    Reads a checkpoint of transformers' AutoModel, also as sentence-transformers writes it (its pooling is then known);
    one with dense layers behind the pooling is refused, because they would be left out.

    Args:
        checkpoint: a folder or Hub id, safetensors.
        pooling: over tokens: `mean`, the `first` (BERT's CLS), the `last` (language models); `auto`: what a
            sentence-transformers folder says, else `mean`.
        prefix: put before every text, as "query: " for E5.
        tokens: of a text that are read; the rest is cut off, said and counted.
    """

    checkpoint: str
    pooling: Pooling = "auto"
    prefix: str = ""
    tokens: int = 512
    modalities = frozenset({"text"})
    differentiable = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ConfigError(f"encoder.tokens: {self.tokens} must be at least 1.")
        if (folder := local_path(self.checkpoint)) is not None and folder.is_dir():
            _refuse_dense(folder)

    @property
    def kept(self) -> KeptTexts:
        """The encoder with its memory, loaded on first use."""
        return _loaded(self.checkpoint, self._pooling, self.prefix, self.tokens, stamp(local_path(self.checkpoint)))

    def prepare(self) -> None:
        """Load the encoder."""
        _ = self.kept

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per text."""
        return self.texts(rollout.output)

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Embed texts, without gradient."""
        return self.kept(texts, fastest())

    def fingerprint(self) -> str:
        """The digest of weights, configuration and tokenizer, and the way they are read."""
        read, folder = f"{self._pooling}-{self.tokens}-{self.prefix!r}", local_path(self.checkpoint)
        return weights_digest(self.checkpoint, weight_files(folder), read, beside_digest(folder))

    @property
    def _pooling(self) -> str:
        if self.pooling != "auto":
            return self.pooling
        path = (local_path(self.checkpoint) or Path("-")) / "1_Pooling" / "config.json"
        modes = read_json(path, "copy it again") if path.is_file() else {"pooling_mode_mean_tokens": True}
        named = [key for key, on in modes.items() if key.startswith("pooling_mode") and on is True]
        if len(named) != 1 or named[0] not in _SENTENCE:
            raise DataError(f"{path}: pools by {', '.join(named) or 'nothing'}; known: {', '.join(_SENTENCE)}.")
        return _SENTENCE[named[0]]


def _refuse_dense(folder: Path) -> None:
    listing = folder / "modules.json"
    if not listing.is_file():
        return
    check_size(listing)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in json.loads(listing.read_text())]
    if odd := [kind for kind in kinds if kind not in _PLAIN]:
        raise DataError(f"{folder}: has a module {odd[0]}; only {', '.join(_PLAIN)} are read.")


@loaded_once(4)
def _loaded(checkpoint: str, pooling: str, prefix: str, tokens: int, stamp: Stamp) -> KeptTexts:
    folder = network_folder(checkpoint)
    with preserve_rng_state():
        model: Any = open_network(folder, "AutoModel", spare=(r"(^|\.)pooler\.",), heads=True)  # no pooler is asked
        tokenizer = open_tokenizer(folder)
    model = (model.get_encoder() if model.config.is_encoder_decoder else model).eval().requires_grad_(False)
    # Position tables end somewhere (RoBERTa's two before their length).
    longest = min(
        tokens, getattr(model.config, "max_position_embeddings", tokens) or tokens, tokenizer.model_max_length
    )

    read = Tokens(
        f"encoder {checkpoint}",
        lambda texts: dict(
            tokenizer([prefix + text for text in texts], truncation=True, max_length=longest, return_tensors="pt")
        ),
        lambda text: whole_length(tokenizer, prefix + text),
        longest,
    )

    def encode(texts: list[str], device: torch.device) -> Tensor:
        inputs = {name: value.to(device) for name, value in read(texts).items()}
        states = model.to(device)(**inputs).last_hidden_state.float()
        return _pooled(states, inputs["attention_mask"].bool(), pooling)

    return KeptTexts(encode, read.limit)


def _pooled(states: Float[Tensor, "B T D"], mask: Tensor, pooling: str) -> Float[Tensor, "B D"]:
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)
