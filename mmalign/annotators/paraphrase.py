"""Other wordings of the prompt: by the embedded world's own grammar, or by a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmalign.annotators._rows import Columns, Row, Skipped, each_row
from mmalign.core.options import AtLeastOne, Count
from mmalign.core.rng import stream_seed
from mmalign.core.types import Prompt
from mmalign.rewards.models.reader import Make, Reader

__all__ = ["Paraphrase"]


@dataclass
class Paraphrase:
    """`paraphrases`, a list of other wordings of what a row asks, none of them the prompt itself.

    Without a generator they are the scenes' own: everyday wordings that say exactly what the canonical caption in the
    column `meaning` says. With one they are what it draws for `instruction`, and nothing tells whether they are right.

    Args:
        count: wordings of each row, at most.
        meaning: the column with the canonical caption of a scene.
        generator: a run directory, a language model's folder, or {adapter: …, policy: …}; "" for the scenes' own.
        instruction: what the generator is asked, with {prompt}.
        seed: of the draws.
    """

    count: AtLeastOne = 4
    meaning: str = "request"
    generator: str | dict[str, Any] = ""
    instruction: str = "Say the same in other words: {prompt}"
    seed: Count = 0
    make: Make | None = field(default=None, repr=False)

    reader: Reader | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.reader = Reader(self.make, self.generator, "generator") if self.generator else None
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with their wordings."""
        return each_row(rows, self._worded)

    def _worded(self, row: Row) -> list[Columns]:
        seed = stream_seed(self.seed, "paraphrase", row.prompt.question)
        drawn = self._of_world(row, seed) if self.reader is None else self._of_model(self.reader, row, seed)
        texts = [text for text in dict.fromkeys(drawn) if text.strip() and text != row.prompt.text][: self.count]
        if not texts:
            raise Skipped("no other wording came")
        return [{**row.columns, "paraphrases": texts}]

    def _of_world(self, row: Row, seed: int) -> list[str]:
        import numpy as np

        from mmalign.miniworld.colloquial import colloquial
        from mmalign.miniworld.language import CaptionError, parse

        try:
            request = parse(row.text(self.meaning))
        except CaptionError as error:
            raise Skipped(f"'{self.meaning}' is no caption of the scenes") from error
        rng = np.random.default_rng(seed)
        return [colloquial(request, rng) for _ in range(4 * self.count)]

    def _of_model(self, reader: Reader, row: Row, seed: int) -> list[str]:
        policy: Any = reader.loaded
        prompt = Prompt(self.instruction.replace("{prompt}", row.prompt.text), row.prompt.media)
        seeds = torch.tensor([stream_seed(seed, str(i)) for i in range(2 * self.count)])
        drawn: list[str] = policy.sample([prompt] * len(seeds), torch.Generator(), seeds=seeds).output
        return drawn
