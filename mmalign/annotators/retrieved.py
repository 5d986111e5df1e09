"""The texts of an index that mean nearly what a row asks: positives for `contrast`, by any encoder of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from mmalign.annotators._file import read_pairs_file
from mmalign.annotators._rows import Columns, Row, Skipped, each_row, text_encoder
from mmalign.core.errors import ConfigError
from mmalign.core.files import require_local
from mmalign.core.options import AtLeastOne, Cosine, must, refuse
from mmalign.core.tensor import Tensor, without_gradient

__all__ = ["Retrieved"]

_AT_ONCE = 256  # texts of the index per call


@dataclass
class Retrieved:
    """`positive`, the list of the nearest other texts of an index, nearest first, with their cosines in `nearness`.

    Positives retrieved by meaning, after SRA-CL (2503.04162), whose users and items are described by a language model
    first and whose positives are mixed by learned weights: here texts are taken as they stand, and `contrast` draws one
    of a row's each step. A row is no neighbour of itself; one without a neighbour that is near enough is skipped.

    Args:
        encoder: of texts: a CLIP checkpoint, or an encoder's spec {name: …, options…}.
        index: the file of rows to look through, as those that are annotated; it may be the same.
        column: of both, with the text.
        count: neighbours of a row, at most.
        least: the cosine from which a text is a neighbour, in [-1, 1].
    """

    encoder: str | dict[str, Any]
    index: str
    column: str = "prompt"
    count: AtLeastOne = 3
    least: Cosine = 0.0

    texts: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    _vectors: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse(must(-1 <= self.least <= 1, f"least: {self.least} is no cosine; it must lie in [-1, 1]."))
        self.reads = text_encoder(self.encoder)
        rows = read_pairs_file(Path(require_local(self.index)))
        held = [row.get(self.column) for row in rows]
        self.texts = list(dict.fromkeys(text for text in held if isinstance(text, str) and text.strip()))
        if not self.texts:
            raise ConfigError(
                f"index: {self.index} has no text in '{self.column}'; its first row has {', '.join(rows[0])}."
            )

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their neighbours."""
        return each_row(rows, self._annotated)

    def _annotated(self, row: Row) -> list[Columns]:
        text = row.text(self.column)
        with torch.no_grad():
            cosine = self._indexed() @ _unit(self.reads.texts([text]))[0]
        order = [i for i in cosine.argsort(descending=True, stable=True).tolist() if self.texts[i] != text]
        near = [i for i in order[: self.count] if float(cosine[i]) >= self.least]
        if not near:
            raise Skipped(f"no other text of the index is as near as {self.least:g}")
        columns = {"positive": [self.texts[i] for i in near], "nearness": [round(float(cosine[i]), 6) for i in near]}
        return [{**row.columns, **columns}]

    @without_gradient
    def _indexed(self) -> Float[Tensor, "N D"]:
        if self._vectors is None:
            parts = [self.texts[i : i + _AT_ONCE] for i in range(0, len(self.texts), _AT_ONCE)]
            self._vectors = torch.cat([_unit(self.reads.texts(part)) for part in parts])
        return self._vectors


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=1)
