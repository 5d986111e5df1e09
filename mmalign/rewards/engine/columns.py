"""Facts that rewards need about a prompt: columns of the data, found in `Prompt.meta`.

A reward says in `needs` which columns it cannot do without. A run whose data has such a column nowhere is stopped
before anything is loaded; a single row without it is NOT_APPLICABLE, so that rewards of different tasks can share a
data set. A reward that can tell from a row's columns alone that it will never be able to score the row has
`check_data(prompt)`, which raises a ValueError that names the column and what it should hold: then the run is stopped
too, for such a row is a fault of the data and not of the policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.core.errors import all_faults, did_you_mean
from mmalign.core.types import Prompt


def needs_of(reward: Any) -> tuple[str, ...]:
    """The columns that `reward` cannot do without."""
    return tuple(getattr(reward, "needs", ()))


def plain_data(value: Any, column: str) -> Any:
    """A column's lists and objects, also where a table holds them as JSON text, as CSV files must.

    Raises:
        ValueError: a text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Prompt.meta['{column}'] is a text that is no JSON ({str(error)[:60]}): {value[:60]!r}"
        ) from None


def missing(prompt: Prompt, needs: Sequence[str], row: int) -> str:
    """A sentence if a column is not there (or None), else ""."""
    absent = [column for column in needs if prompt.meta.get(column) is None]
    if not absent:
        return ""
    held = ", ".join(map(str, prompt.meta)) or "nothing"
    return f"row {row} ('{prompt.text[:40]}'): Prompt.meta has no '{absent[0]}'; it holds {held}"


def require_columns(rewards: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """Stop where no prompt at all has a column that a reward needs, or a reward cannot read what a row's columns hold.

    Args:
        rewards: by their place in the run file, for the message.
        prompts: all that will be scored.

    Raises:
        DataError: every such column and row at once.
    """
    held = {str(column) for prompt in prompts for column, value in prompt.meta.items() if value is not None}
    faults = [
        f"{place}: needs the column '{column}', which none of the {len(prompts)} rows has."
        f"{did_you_mean(column, held)} Columns found: {', '.join(sorted(held)) or 'none'}."
        for place, reward in rewards.items()
        for column in needs_of(reward)
        if column not in held
    ]
    faults += [fault for place, reward in rewards.items() for fault in _unreadable(place, reward, prompts)]
    if faults and prompts:
        raise all_faults(faults)


def check_data_of(reward: Any, prompt: Prompt) -> None:
    """`reward.check_data(prompt)` where it has one, of a row that has its columns: for rewards made of others."""
    check = getattr(reward, "check_data", None)
    if check is not None and not missing(prompt, needs_of(reward), 0):
        check(prompt)


def _unreadable(place: str, reward: Any, prompts: Sequence[Prompt]) -> list[str]:
    faults = []
    for row, prompt in enumerate(prompts):
        try:
            check_data_of(reward, prompt)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            where = prompt.place or f"row {row} ('{prompt.text[:40]}')"
            faults.append(f"{where}: {place}: {error}. Mend the row or leave it out.")
    return faults
