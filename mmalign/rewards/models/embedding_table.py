"""The token-embedding matrix of a checkpoint, read without the rest of it, and the tokenizer that numbers its rows."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.files import require_local
from mmalign.core.tensor import Tensor

#: How model families end the name of the matrix.
NAMES = (
    "embed_tokens.weight",
    "token_embedding.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embed_in.weight",
    "shared.weight",
    "wte.weight",
)


@dataclass
class EmbeddingTable:
    """Rows of a fixed matrix for the tokens of a text."""

    matrix: Float[Tensor, "V D"]
    tokenizer: Any  # of the `tokenizers` library

    @cached_property
    def mean(self) -> Float[Tensor, " D"]:
        """The mean of all rows: what every token shares."""
        return self.matrix.mean(0)

    @cached_property
    def fingerprint(self) -> str:
        """The digest of the matrix and the tokenizer."""
        return hashlib.sha256(self.matrix.numpy().tobytes() + self.tokenizer.to_str().encode()).hexdigest()[:16]

    def rows(self, text: str) -> Float[Tensor, "N D"]:
        """One row per token; special tokens, punctuation and blanks are left out.

        They come in the order of the vocabulary: what does not mind the order of words does not, to the last digit, so
        that equals are a tie and no rounding decides between them.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        known = sorted(i for i in ids if i < len(self.matrix) and self._says(i))
        return self.matrix[torch.tensor(known, dtype=torch.long)]

    def _says(self, token: int) -> bool:
        return any(unicodedata.category(c)[0] in "LNS" for c in self.tokenizer.decode([token]))


@lru_cache(maxsize=4)
def load_table(checkpoint: str, tensor: str = "") -> EmbeddingTable:
    """The table of a folder with safetensors and `tokenizer.json` (transformers, open_clip, sentence-transformers).

    Args:
        checkpoint: the folder; a subfolder where the parts are (`…/text_encoder`) works too, with its own tokenizer.
        tensor: the matrix' name; found by its usual names if "".

    Raises:
        DataError: no such folder, no tokenizer, no matrix of that name, or several that could be meant.
    """
    from tokenizers import Tokenizer

    folder = require_local(checkpoint)
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder}: no tokenizer.json in it; save the checkpoint with its fast tokenizer.")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return EmbeddingTable(_matrix(folder, tensor).float(), tokenizer)


def _matrix(folder: Path, tensor: str) -> Tensor:
    from safetensors import safe_open

    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            files |= dict.fromkeys(file.keys(), path)
    names = [name for name in files if (name == tensor if tensor else name.endswith(NAMES))]
    if len(names) != 1:
        what = f"no tensor '{tensor}'" if tensor else f"{len(names)} tensors that could be token embeddings"
        two = ", ".join(json.dumps(name) for name in (names or list(files))[:8]) or "no safetensors"
        raise DataError(f"{folder}: {what}; name one with `tensor`. It holds {two}.")
    with safe_open(files[names[0]], "pt") as file:
        return file.get_tensor(names[0])
