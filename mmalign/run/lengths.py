"""Do the run's texts fit its language model? Every row is measured before the model is loaded, by its tokenizer.

What does not fit is refused with its file and line, or, by `trainer.too_long`, left out (`skip`), or its prompt loses
its first words (`cut`, which leaves the template whole; a target is never cut: its end would be learned mid-sentence).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

from mmalign.adapters.language._reader import PairReader, Reader
from mmalign.core.config import RunFile
from mmalign.core.errors import CheckpointError, DataError, all_faults, shown
from mmalign.core.objective import Objective, ObjectiveTraits
from mmalign.core.protocols import Adapter
from mmalign.core.types import Example, Preference, Prompt
from mmalign.core.unloaded import Unloaded
from mmalign.data.lazy_rows import LazyRows
from mmalign.data.row_kinds import Row, modality_of_rows, prompt_of

AnyReader = Reader | PairReader  # of completions, or of prompts with their outputs
log = logging.getLogger("mmalign")

Need = Callable[[Row], tuple[int, str]]  # a row → tokens behind its prompt, and what they are
# A row → its tokens in all, what they are, and how its prompt loses some of them.
Look = Callable[[Row], tuple[int, str, Callable[[int], Prompt | None]]]


@runtime_checkable
class HasReader(Protocol):
    """An adapter of language, whose rows can be measured before it is loaded."""

    def reader(self, fetch: bool = True) -> AnyReader | None:
        """Return what counts its tokens; CheckpointError where the tokenizer is not to be had."""
        ...


@runtime_checkable
class TokenLimits(Protocol):
    """The options of a policy of tokens that say how long its completions may get."""

    max_new_tokens: int
    eval_max_new_tokens: int | None


@dataclass
class Measured:
    """What `items` came to: those that stay (shortened ones among them), and what is wrong with the others."""

    context: int | None = None
    items: Sequence[Any] = ()
    fitting: list[int] = field(default_factory=list)  # places in `items`
    shortened: dict[int, Any] = field(default_factory=dict)  # by place
    faults: list[str] = field(default_factory=list)  # mended in the file alone
    long: list[str] = field(default_factory=list)
    cut: int = 0
    instead: str = "lower policy.max_new_tokens, "

    @property
    def rows(self) -> Sequence[Any]:
        """The rows that stay."""
        return LazyRows(lambda at: self.shortened[at] if at in self.shortened else self.items[at], self.fitting)

    def report(self, how: str, what: str) -> None:
        """Raise DataError for rows that cannot be used, up to 20 of them; say what `how` left of those too long."""
        refused = self.faults + (self.long if how == "refuse" else [])
        if refused:
            advice = (
                f"\n{len(self.long)} rows are too long for a context of {self.context} tokens: shorten them, "
                f"{self.instead}or set trainer.too_long: skip (leaves them out) or cut (their prompts lose "
                "their first words)."
            )
            raise DataError(f"{all_faults(refused)}{advice if self.long and how == 'refuse' else ''}")
        if self.long:
            left = len(self.long) - self.cut
            log.warning(
                "trainer.too_long: %s: of the rows %s, %d were cut and %d left out; the first: %s",
                *(how, what, self.cut, left, self.long[0]),
            )
        if self.long and not self.rows:
            raise DataError(f"trainer.too_long: {how} leaves no row {what}; the first: {self.long[0]}")


def reader_of(adapter: Unloaded[Adapter], fetch: bool = False) -> AnyReader | None:
    """What counts tokens for a language adapter; None for others, and, said, where its tokenizer is not to be had.

    `fetch`: get a Hub model's tokenizer if it is not on this machine.
    """
    if not isinstance(adapter, HasReader):
        return None
    try:
        return adapter.reader(fetch)
    except CheckpointError as error:
        log.warning("rows are not measured against the model's context: %s.", str(error).rstrip("."))
        return None


def training_lengths(
    file: RunFile, policy: object, objective: Objective[Any], reader: AnyReader, items: Sequence[Any]
) -> Measured:
    """Measure the rows to train on, with what the objective reads or samples after their prompts."""
    if isinstance(reader, PairReader):
        return _judged(file.trainer.too_long, reader, items)
    limits = cast(TokenLimits, policy)  # what a reader of completions belongs to
    traits = ObjectiveTraits.of(objective)
    column, offline = traits.target, traits.online == "off"

    def need(row: Row) -> tuple[int, str]:
        if not offline:
            return limits.max_new_tokens, f"a completion of {limits.max_new_tokens}"
        if isinstance(row, Preference):
            texts = {"chosen": row.chosen, "rejected": row.rejected}
        elif isinstance(row, Example):
            texts = {"output": row.output}
        else:
            texts = {column: prompt_of(row).meta.get(column)}
        lengths = {name: _target(reader, name, text, row) for name, text in texts.items()}
        name = max(lengths, key=lengths.__getitem__)
        return lengths[name], f"'{name}' of {lengths[name]}"

    return _measured(file.trainer.too_long, reader, items, need)


def evaluation_lengths(file: RunFile, policy: object, reader: AnyReader, questions: Sequence[Any]) -> Measured:
    """Measure the rows of evaluation, with what is generated after their prompts."""
    if isinstance(reader, PairReader):
        return _judged(file.trainer.too_long, reader, questions)
    limits = cast(TokenLimits, policy)
    steps = limits.eval_max_new_tokens or limits.max_new_tokens
    return _measured(file.trainer.too_long, reader, questions, lambda row: (steps, f"a completion of {steps}"))


def _target(reader: Reader, column: str, value: object, row: Row) -> int:
    """Count the tokens of a given text; raise DataError where it is missing or no text."""
    if isinstance(value, str):
        return int(reader.target(value, prompt_of(row)))
    if value is None:
        columns = ", ".join(row.meta if isinstance(row, Prompt) else ()) or "none"
        raise DataError(
            f"no '{column}' to imitate; its other columns: {columns}. Name one in objective.target, or set "
            "objective.online."
        )
    raise DataError(f"'{column}' is {value!r} ({type(value).__name__}), not a text; put it in quotes in the file.")


def _judged(how: str, reader: PairReader, items: Sequence[Any]) -> Measured:
    """Rows of a reward model, which reads a prompt with each of its outputs."""

    def longest(row: Row) -> tuple[int, str, str]:
        prompt = prompt_of(row)
        return max((reader.pair(prompt, text), name, text) for name, text in _outputs(row))

    def look(row: Row) -> tuple[int, str, Callable[[int], Prompt | None]]:
        length, name, text = longest(row)
        prompt = prompt_of(row)
        what = f"a prompt with its '{name}' of {length} tokens is"
        return length, what, lambda over: reader.shortened(prompt, text, over)

    return replace(_looked_at(how, reader.context, items, look), instead="")


def _outputs(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the texts that are judged, each with its column; raise DataError where one is no text."""
    for name in ("chosen", "rejected"):
        value: Any = getattr(row, name) if isinstance(row, Preference) else prompt_of(row).meta.get(name)
        texts = value if isinstance(value, list | tuple) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"'{name}' is {shown(value, 60)}; expected a text or a list of texts.")
        yield from ((name, text) for text in texts)


def _measured(how: str, reader: Reader, items: Sequence[Any], need: Need) -> Measured:

    def look(row: Row) -> tuple[int, str, Callable[[int], Prompt | None]]:
        prompt = prompt_of(row)
        length, (behind, what) = reader.prompt(prompt), need(row)
        return length + behind, f"a prompt of {length} tokens and {what} are", partial(reader.shortened, prompt)

    return _looked_at(how, reader.context, items, look)


def _looked_at(how: str, context: int | None, items: Sequence[Any], look: Look) -> Measured:
    selection = Measured(context, items)
    if modality_of_rows(items) not in (None, "text"):  # told elsewhere, and looking would decode them
        return selection
    for number in range(len(items)):
        place = f"row {number} of the data"
        try:
            row = items[number]
            prompt = prompt_of(row)
            place = prompt.place or place
            length, what, shorten = look(row)
        except DataError as error:
            message = str(error)
            selection.faults.append(message if place in message else f"{place}: {message}")
            continue
        over = length - context if context is not None else 0
        if over <= 0:
            selection.fitting.append(number)
            continue
        selection.long.append(f"{place}: {what} {over} more than the model's context.")
        if how == "cut" and (shorter := shorten(over)) is not None:
            selection.cut += 1
            selection.fitting.append(number)
            whole = isinstance(row, Preference | Example)
            selection.shortened[number] = replace(row, prompt=shorter) if whole else shorter
    return selection


__all__ = ["AnyReader", "Measured", "TokenLimits", "evaluation_lengths", "reader_of", "training_lengths"]
