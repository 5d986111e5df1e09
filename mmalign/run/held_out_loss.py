"""The loss of imitation on rows that are set aside, at the same noise each time: does it still generalise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmalign.core.experience import Experience
from mmalign.core.objective import ObjectiveTraits
from mmalign.core.protocols import AnyPolicy
from mmalign.core.rng import stream
from mmalign.data.batches import bucket_of_each
from mmalign.data.row_kinds import kind_of_rows
from mmalign.run.build import Parts
from mmalign.run.checks.shapes import fitted_rows
from mmalign.run.hooks import due
from mmalign.training.failures import evaluating
from mmalign.training.session import Session

__all__ = ["HeldOutLoss"]


@dataclass
class HeldOutLoss:
    """Logs `eval/loss` before training, when evaluations are due, and after the last step, in the main process.

    `rows` are held-out ones with outputs, of which `evaluation.count` are taken; without any nothing is logged.
    """

    parts: Parts
    rows: Sequence[Any]

    @classmethod
    def of(cls, parts: Parts) -> HeldOutLoss:
        """Of the data's own held-out side, where the objective has such a loss and the rows have outputs."""
        rows = parts.source.held_out_items()
        traits = ObjectiveTraits.of(parts.objective)
        if traits.held_out_loss is None or not len(rows) or kind_of_rows(rows) == "prompts":
            return cls(parts, [])
        rows = rows[: parts.file.evaluation.count or None]
        return cls(parts, fitted_rows(parts.adapter, parts.source, rows, parts.file.trainer.seed, "fetch"))

    def __call__(self, session: Session, policy: AnyPolicy, experience: Experience) -> None:
        """Measure when due."""
        if due(session.step, session.trainer.evaluate_every) or session.step == session.trainer.steps:
            self.now(session)

    def now(self, session: Session) -> None:
        """Measure the weights as they are, or their average if there is one."""
        loss = ObjectiveTraits.of(self.parts.objective).held_out_loss
        if not (self.rows and session.is_main and loss is not None):
            return
        wanted = self.parts.file.evaluation
        size = 1 if bucket_of_each(self.rows) else wanted.rows  # pictures of several shapes make no batch
        total = 0.0
        measuring = evaluating(len(self.rows), size)
        with session.timed_apart("evaluate"), session.update_rule.averaged(), torch.no_grad(), measuring:
            for start in range(0, len(self.rows), size):
                part = self.rows[start : start + size]
                total += len(part) * loss(self.parts.policy, part, stream(wanted.seed, "held out", start))
        session.log({"eval/loss": total / len(self.rows)})
