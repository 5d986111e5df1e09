"""A critique behind each output of a pair, for reward models that read it before they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmalign.annotators._rows import Columns, Row, Skipped, each_row
from mmalign.core.errors import ConfigError
from mmalign.core.options import Count
from mmalign.rewards.models.critic import INSTRUCTION, TEMPLATE, Critic, check_criticised, criticised
from mmalign.rewards.models.reader import Make
from mmalign.rewards.models.template import check_template

__all__ = ["Critique"]


@dataclass
class Critique:
    """`chosen` and `rejected` with what a critic says of each behind it: rows for `bradley_terry`.

    MM-RLHF (2502.10391) has its reward model write a critique and then score output and critique. Two models do it
    here: the critic, any language model, which `form: critic` makes rows for (`prompt`, `target`, for `sft`), and a
    reward model fitted to pairs with critiques. Outputs are then scored by reward `critiqued` with the same critic,
    instruction and template. Left out: one network for both, the critics' loss beside Bradley-Terry's.

    Args:
        source: `generator` writes the critiques; `columns` are there already: what people, or a better model, wrote.
        generator: a run directory, a language model's folder, or {adapter: …, policy: …}.
        instruction: what the critic is asked, with {prompt} and {output}.
        template: an output with its critique, with {output} and {critique}.
        chosen, rejected: the columns with critiques; MM-RLHF's own are chosen_reason and rejected_reason.
        form: `pairs`; or `critic`: a row for each critique, to train a critic on.
        seed: of the generator's draws.
    """

    source: Literal["generator", "columns"] = "generator"
    generator: str | dict[str, Any] = ""
    instruction: str = INSTRUCTION
    template: str = TEMPLATE
    chosen: str = "chosen_critique"
    rejected: str = "rejected_critique"
    form: Literal["pairs", "critic"] = "pairs"
    seed: Count = 0
    make: Make | None = field(default=None, repr=False)

    critic: Critic | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.source == "generator":
            self.critic = Critic(self.make, self.generator, self.instruction, self.seed, "generator")
        elif self.generator:
            raise ConfigError("generator: source: columns reads critiques that are there; leave generator out.")
        self._to_critic = check_template(self.instruction, "instruction", ["output"])
        self._template = check_criticised(self.template)
        self.make = None

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The N rows with critiques, or two rows for a critic of each."""
        return each_row(rows, self._criticised)

    def _criticised(self, row: Row) -> list[Columns]:
        outputs = [row.text("chosen"), row.text("rejected")]
        if self.critic is None:
            critiques = [row.text(self.chosen), row.text(self.rejected)]
        else:
            critiques = self.critic.critiques([row.prompt, row.prompt], outputs)
        if empty := sum(not critique.strip() for critique in critiques):
            raise Skipped(f"the critic wrote nothing of {'either side' if empty == 2 else 'one side'}")
        if self.form == "critic":
            pairs = zip(outputs, critiques, strict=True)
            kept = {name: row.columns[name] for name in ("image", "audio") if name in row.columns}
            return [
                {**kept, "prompt": self._to_critic.filled(row.prompt, output), "target": critique.strip()}
                for output, critique in pairs
            ]
        chosen, rejected = (
            criticised(self._template, row.prompt, output, critique)
            for output, critique in zip(outputs, critiques, strict=True)
        )
        return [{**row.columns, "chosen": chosen, "rejected": rejected}]
