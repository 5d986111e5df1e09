"""What annotators are given and give back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mmalign.core.errors import ConfigError
from mmalign.core.protocols import TextEncoder
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.models.reader import Make

Columns = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of a file: its `columns` as they stand there, and the `prompt` that they make."""

    columns: Mapping[str, Any]
    prompt: Prompt

    @classmethod
    def of(cls, columns: Mapping[str, Any], place: str = "") -> Row:
        """Read a row's prompt: its text, and every other column as a fact of it."""
        facts = {name: value for name, value in columns.items() if name != "prompt"}
        return cls(columns, Prompt(str(columns.get("prompt") or ""), meta=facts, place=place))

    def text(self, column: str) -> str:
        """The text of a column; Skipped where there is none."""
        value = self.columns.get(column)
        if not isinstance(value, str) or not value.strip():
            raise Skipped(f"'{column}' holds no text")
        return value

    def texts(self, column: str) -> list[str]:
        """The texts of a list; Skipped unless it holds two different ones at least."""
        value = self.columns.get(column)
        if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
            raise Skipped(f"'{column}' holds no list of texts")
        if len(set(value)) < 2:
            raise Skipped(f"'{column}' holds fewer than two different texts")
        return value


class Skipped(Exception):
    """Why nothing comes of a row."""


@runtime_checkable
class Annotator(Protocol):
    """Reads rows, and says of each which rows come of it, or why none does."""

    def __call__(self, rows: Sequence[Row]) -> list[list[Columns] | Skipped]:
        """The rows that come of each of N rows: usually it, with further columns."""
        ...


def built(make: Make | None, specs: Sequence[Mapping[str, Any]], at: str) -> list[Any]:
    """The rewards of rows that `specs` describe.

    Raises:
        ConfigError: no way to build them, none named, or one that judges sets.
    """
    if make is None:
        raise ConfigError(f"{at}: is built from sections; use mmalign annotate, or annotators.build.")
    if not specs:
        raise ConfigError(f"{at}: is empty; name at least one reward, {{name: …}}.")
    rewards = [make("rewards", spec, f"{at}.{number}") for number, spec in enumerate(specs)]
    if sets := [spec["name"] for spec, reward in zip(specs, rewards, strict=True) if not callable(reward)]:
        raise ConfigError(f"{at}: '{sets[0]}' judges sets, not rows; name a reward of rows.")
    return rewards


def text_encoder(spec: str | dict[str, Any]) -> TextEncoder:
    """The encoder of texts of a spec.

    Raises:
        ConfigError: no spec, or one of an encoder that embeds no texts.
    """
    from mmalign.rewards.encoders import make_encoder, no_side

    encoder = make_encoder(spec)
    if not isinstance(encoder, TextEncoder):
        raise no_side(TextEncoder, "embeds no texts")
    return encoder


def scores_by_reward(reward: Any, prompts: Sequence[Prompt], texts: Sequence[str]) -> Scores:
    """What a reward says of given texts, on the CPU; a failing row has its status."""
    from mmalign.rewards import Guarded

    guarded = Guarded("annotator", reward, failed_share=1.0)
    scores: Scores = guarded(Rollout.of(list(prompts), list(texts))).to("cpu")
    return scores


def each_row(rows: Sequence[Row], read: Any) -> list[list[Columns] | Skipped]:
    """`read(row)` of every row, which returns the rows that come of it or raises Skipped."""
    made: list[list[Columns] | Skipped] = []
    for row in rows:
        try:
            made.append(read(row))
        except Skipped as skipped:
            made.append(skipped)
    return made
