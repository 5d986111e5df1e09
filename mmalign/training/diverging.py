"""A model that diverged ends its run with a sentence: at which step, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmalign.core.errors import Diverged
from mmalign.core.tensor import Tensor
from mmalign.training.session import Session

PATIENCE = 3  # updates in a row whose loss is not finite: one bad row, or float16 finding its scale, is not yet the end


class LossWatch:
    """Counts updates in a row whose loss was not finite; those move nothing, and the next ones will not either."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def see(self, loss: Tensor) -> None:
        """Look at one update's loss. Raises Diverged at the third in a row that is not finite."""
        self._in_a_row = 0 if bool(torch.isfinite(loss)) else self._in_a_row + 1
        if self._in_a_row >= PATIENCE:
            raise Diverged(f"the loss of {PATIENCE} updates in a row is not finite ({float(loss)}): the model diverged")


@contextmanager
def placed(session: Session) -> Iterator[None]:
    """Inside it, what says that the model diverged says at which step, and what to do."""
    try:
        yield
    except Diverged as error:
        trainer = session.trainer
        raise Diverged(
            f"step {session.step + 1} of {trainer.steps}: {error}. Lower trainer.lr (now {trainer.lr:g}) or raise "
            f"trainer.warmup (now {trainer.warmup}), and start again, or resume from a checkpoint before it."
        ) from error
