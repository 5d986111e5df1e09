"""Can the language model take every row: its length, its targets, what its text holds? By the tokenizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.core.config import RunFile
from mmalign.core.objective import Objective
from mmalign.core.protocols import Adapter
from mmalign.data.sampled import sampled
from mmalign.run.checks import Faults, check, check_training, part
from mmalign.run.lengths import AnyReader, TokenLimits, evaluation_lengths, reader_of, training_lengths


@part
def reader(adapter: Adapter) -> AnyReader | None:
    """What counts its tokens; None where there are none, or its tokenizer is not on this machine."""
    return reader_of(adapter)


@check_training
def texts(
    file: RunFile,
    policy: TokenLimits,
    objective: Objective[Any],
    reader: AnyReader | None,
    items: Sequence[Any],
) -> Faults:
    """Refuse rows to train on that the language model cannot take, or say what `trainer.too_long` leaves of them."""
    if reader is not None:
        rows = sampled(items) if file.trainer.too_long == "refuse" else items  # all are to be cut or left out
        training_lengths(file, policy, objective, reader, rows).report(file.trainer.too_long, "to train on")
    yield from ()


@check
def held_out_texts(file: RunFile, policy: TokenLimits, reader: AnyReader | None, questions: Sequence[Any]) -> Faults:
    """Of the rows that are measured on."""
    if reader is not None:
        evaluation_lengths(file, policy, reader, questions).report(file.trainer.too_long, "to measure on")
    yield from ()
