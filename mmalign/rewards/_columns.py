"""Facts that rewards need about a prompt: columns of the data, found in `Prompt.meta`.

A reward says in `needs` which columns it cannot do without. A run whose data has such a column nowhere is stopped
before anything is loaded; a single row without it is NOT_APPLICABLE, so that rewards of different tasks can share a
data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.core.errors import DataError, did_you_mean
from mmalign.core.types import Prompt


def needs_of(reward: Any) -> tuple[str, ...]:
    """The columns that `reward` cannot do without."""
    return tuple(getattr(reward, "needs", ()))


def missing(prompt: Prompt, needs: Sequence[str], row: int) -> str:
    """A sentence if a column is not there (or None), else ""."""
    absent = [column for column in needs if prompt.meta.get(column) is None]
    if not absent:
        return ""
    held = ", ".join(map(str, prompt.meta)) or "nothing"
    return f"row {row} ('{prompt.text[:40]}'): Prompt.meta has no '{absent[0]}'; it holds {held}"


def require_columns(rewards: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """Stop where no prompt at all has a column that a reward needs.

    Args:
        rewards: by their place in the run file, for the message.
        prompts: all that will be scored.

    Raises:
        DataError: every such column at once.
    """
    held = {str(column) for prompt in prompts for column, value in prompt.meta.items() if value is not None}
    faults = [
        f"{place}: needs the column '{column}', which none of the {len(prompts)} rows has."
        f"{did_you_mean(column, held)} Columns found: {', '.join(sorted(held)) or 'none'}."
        for place, reward in rewards.items()
        for column in needs_of(reward)
        if column not in held
    ]
    if faults and prompts:
        raise DataError("\n".join(faults))
