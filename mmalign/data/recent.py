"""What was made of late, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from mmalign.core.tensor import Tensor

__all__ = ["Recent"]


class Recent:
    """Tensors by key, of together at most `limit` bytes; those that were not asked for longest go first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._kept = OrderedDict[Hashable, Sequence[Tensor]]()

    def get(self, key: Hashable) -> Sequence[Tensor] | None:
        """Return what is kept under a key; None where nothing is."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, made: Sequence[Tensor]) -> None:
        """Keep tensors, as they are; not what alone is beyond the limit."""
        size = sum(_bytes(tensor) for tensor in made)
        if size > self.limit or key in self._kept:
            return
        self._kept[key] = made
        self.bytes += size
        while self.bytes > self.limit:
            self.bytes -= sum(_bytes(tensor) for tensor in self._kept.popitem(last=False)[1])


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
