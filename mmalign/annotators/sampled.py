"""A demonstration against what the policy itself would say: comparisons without a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmalign.annotators._rows import Columns, Row, Skipped
from mmalign.core.errors import ConfigError
from mmalign.core.options import Count
from mmalign.core.rng import stream_seed
from mmalign.rewards.models.reader import Make, Reader

__all__ = ["Sampled"]


@dataclass
class Sampled:
    """`chosen` is the demonstration, `rejected` a text that the generator draws for the same prompt.

    Reward learning from demonstrations (the survey of inverse reinforcement learning, Sun & van der Schaar 2025,
    arXiv 2507.13158; SPIN, arXiv 2401.01335, with the policy as its own opponent): `bradley_terry` on such rows is the
    reward under which the demonstrations are better than what is there. A draw that is the demonstration is skipped.

    With `draws` the rows are kept and `outputs`, so many draws of each, stands beside them: what `agreement` ranks, and
    what objective `meta_rm` keeps apart.

    Args:
        generator: who draws: a run directory, a language model's folder, or {adapter: …, policy: …}.
        demonstration: the column to imitate.
        draws: 0 makes pairs; else texts in `outputs`.
        seed: of the draws; a row's draw does not depend on the rows beside it.
    """

    generator: str | dict[str, Any]
    demonstration: str = "target"
    draws: Count = 0
    seed: Count = 0
    make: Make | None = field(default=None, repr=False)

    reader: Reader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.reader = Reader(self.make, self.generator, "generator")
        self.make = None
        if self.reader.policy.modality != "text":
            raise ConfigError(f"generator: makes {self.reader.policy.modality}; rows of a file hold texts.")

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with both sides."""
        import torch

        policy: Any = self.reader.loaded
        times = [("sampled",)] if not self.draws else [("sampled", number) for number in range(self.draws)]
        seeds = [stream_seed(self.seed, *names, row.prompt.question) for row in rows for names in times]
        prompts = [row.prompt for row in rows for _ in times]
        drawn = policy.sample(prompts, torch.Generator(), seeds=torch.tensor(seeds)).output
        if not self.draws:
            return [self._pair(row, text) for row, text in zip(rows, drawn, strict=True)]
        each = [drawn[at : at + self.draws] for at in range(0, len(drawn), self.draws)]
        return [[{**row.columns, "outputs": texts}] for row, texts in zip(rows, each, strict=True)]

    def _pair(self, row: Row, text: str) -> list[Columns] | Skipped:
        try:
            demonstration = row.text(self.demonstration)
        except Skipped as skipped:
            return skipped
        if text.strip() == demonstration.strip():
            return Skipped("the generator drew the demonstration itself")
        return [{**row.columns, "chosen": demonstration, "rejected": text}]
