"""Like instructions with their likeness as weights: a reward averaged over them is RewardFusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmalign.annotators._file import read_pairs_file
from mmalign.annotators._rows import Columns, Row, Skipped, each_row, text_encoder
from mmalign.core.errors import ConfigError
from mmalign.core.options import AtLeastOne, Share
from mmalign.core.protocols import TextEncoder
from mmalign.core.tensor import Tensor

__all__ = ["Neighbours"]


@dataclass
class Neighbours:
    """`wordings`, {text: weight}: the prompt itself and its nearest instructions, the weights their cosines, sum 1.

    RewardFusion ("The Trickle-down Impact of Reward (In-)consistency on RLHF", 2309.16155): the reward of a response is
    averaged over instructions like its own. With these weights that average is reward `marginal` with `column:
    wordings` and `template: "{context}"`; the paper takes the five nearest with a cosine of at least 0.9.

    Args:
        encoder: of texts: an encoder's spec {name: text, checkpoint: …}, or a CLIP checkpoint; required.
        column: of the row's own like instructions, as `paraphrase` writes them; "": none.
        pool: a JSONL file whose prompts are candidates too; "": none.
        count: of the nearest that are kept.
        least: cosine that a like instruction has.
    """

    encoder: str | dict[str, Any] = ""
    column: str = "paraphrases"
    pool: str = ""
    count: AtLeastOne = 5
    least: Share = 0.9

    embedder: TextEncoder = field(init=False, repr=False, compare=False)
    _pool: tuple[list[str], Tensor] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.column and not self.pool:
            raise ConfigError("column and pool: both are empty; name one, where like instructions come from.")
        if self.pool and not Path(self.pool).is_file():
            raise ConfigError(f"pool: {self.pool} is no file; name lines of JSON with a prompt each.")
        self.embedder = text_encoder(self.encoder)

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their wordings."""
        return each_row(rows, self._weighed)

    def _weighed(self, row: Row) -> list[Columns]:
        own = row.text("prompt")
        given = row.columns.get(self.column) if self.column else None
        texts = [text for text in dict.fromkeys(given or []) if isinstance(text, str) and text.strip() and text != own]
        embedded = self._embed([own, *texts])
        query, nearness = embedded[0], dict(zip(texts, embedded[1:] @ embedded[0], strict=True))
        if self.pool:
            known, pooled = self._candidates()
            nearness |= {text: near for text, near in zip(known, pooled @ query, strict=True) if text != own}
        nearest = sorted(nearness.items(), key=lambda item: -float(item[1]))[: self.count]
        kept = {own: 1.0} | {text: min(float(near), 1.0) for text, near in nearest if float(near) >= self.least}
        total = sum(kept.values())
        return [{**row.columns, "wordings": {text: near / total for text, near in kept.items()}}]

    def _candidates(self) -> tuple[list[str], Tensor]:
        if self._pool is None:
            prompts = [str(line.get("prompt") or "") for line in read_pairs_file(Path(self.pool))]
            texts = list(dict.fromkeys(text for text in prompts if text.strip()))
            if not texts:
                raise ConfigError(f"pool: {self.pool} holds no prompt.")
            self._pool = texts, self._embed(texts)
        return self._pool

    def _embed(self, texts: list[str]) -> Tensor:
        with torch.no_grad():
            return self.embedder.texts(texts).float().cpu()
