"""Processes that wait for each other without a time limit, and can be interrupted while they do.

NCCL's and gloo's collectives end a job after ten or thirty minutes in which one process did not come: evaluating with a
slow judge, writing a checkpoint or downloading takes longer. So before a collective all meet here first.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")
_LONG = timedelta(days=30)
_POLL = 0.02  # seconds


class Patient:
    """A group of all processes of its own, on the CPU; made by all of them at the same point."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._group: Any = dist.new_group(backend="gloo", timeout=_LONG)

    def meet(self) -> None:
        """Return once every process is here.

        Raises:
            RuntimeError: one of them has ended.
        """
        import torch.distributed as dist

        work: Any = dist.barrier(group=self._group, async_op=True)
        wait = 0.0005
        while not work.is_completed():  # not `wait`: signals would not be heard in it
            time.sleep(wait)
            wait = min(2 * wait, _POLL)
        work.wait()

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in their order."""
        import torch.distributed as dist

        self.meet()
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values
