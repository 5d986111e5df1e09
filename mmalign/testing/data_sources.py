"""What every data source owes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.core.protocols import DataSource
from mmalign.core.types import Example, Preference, Prompt
from mmalign.data.held_out import overlap
from mmalign.data.row_kinds import prompts_of
from mmalign.testing.faults import Faults, has_members, random_state_kept


def check_data_source(source: Any) -> None:
    """Read all rows of `source`.

    Checked: the members of `DataSource`; at least one row to train on; rows that are all prompts, all preferences
    or all examples, on both sides; no prompt, picture or sound that is both trained on and held out; the same prompts
    when asked again; the global random numbers left alone.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(source).__name__)
    if has_members(faults, source, DataSource):
        with faults.stage("reading rows"):
            with random_state_kept(faults):
                training, held_out = source.training_items(), source.held_out_items()
            _check_rows(faults, training, held_out)
            for side, rows in (("training", training), ("held_out", held_out)):
                again = prompts_of(getattr(source, f"{side}_items")())
                same = [prompt.text for prompt in again] == [prompt.text for prompt in prompts_of(rows)]
                faults.require(same, f"{side}_items() has other prompts when it is called again")
    faults.report()


def _check_rows(faults: Faults, training: Sequence[Any], held_out: Sequence[Any]) -> None:
    faults.require(len(training) > 0, "there is no row to train on")
    kinds = {type(row) for row in [*training, *held_out]}
    named = " and ".join(sorted(kind.__name__ for kind in kinds))
    one_kind = kinds in ({Prompt}, {Preference}, {Example}, set())
    if faults.require(one_kind, f"rows are {named}; all Prompt, all Preference or all Example"):
        shared, total = overlap(prompts_of(training), prompts_of(held_out))
        faults.require(not shared, f"{len(shared)} of {total} held-out prompts are trained on: {shared[:1]}")


__all__ = ["check_data_source"]
