"""What surrounds a component in a run file: what an objective may have something against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What an objective can check of the run around it before anything is loaded.

    `objective` and `combine` are their names in the run file; `reward` is the run's one reward (a mix with `slots`, and
    `relative` if it puts values on a scale of their group), None where the run file has none; `policy` is the class of
    the run's policy and `adapter` that of its adapter, None where they are not known.
    """

    objective: str
    combine: str
    reward: Any = None
    policy: type | None = None
    adapter: type | None = None

    def taken_over(self, what: str) -> list[str]:
        """Return the rewards of the run file that are taken `over` it ("group", "batch")."""
        return [name for name, slot in self.reward.slots.items() if slot.over == what] if self.reward else []

    def rules_of_single_rewards(self) -> list[str]:
        """For an objective that takes rewards one by one with their weights: a combination would do nothing."""
        if self.combine == "weighted_sum":
            return []
        return [
            f"combine: objective '{self.objective}' takes each reward by its weight, so '{self.combine}' would have no "
            "effect; remove the section."
        ]


__all__ = ["Setting"]
