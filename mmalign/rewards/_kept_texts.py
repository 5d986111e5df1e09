"""Features of texts, each distinct one encoded once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

_KEPT, _AT_ONCE = 8192, 256


@dataclass
class KeptTexts:
    """`encode(texts, device) -> (N, D)` with a memory of unit rows; the oldest are forgotten first."""

    encode: Callable[[list[str], torch.device], Tensor]
    _rows: OrderedDict[str, Tensor] = field(default_factory=OrderedDict, repr=False)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Float[Tensor, "B D"]:
        """Unit features, float32, on `device`."""
        device = torch.device(device)
        fresh = [text for text in dict.fromkeys(texts) if text not in self._rows]
        for start in range(0, len(fresh), _AT_ONCE):
            some = fresh[start : start + _AT_ONCE]
            with torch.autocast(device.type, enabled=False):
                features = normalize(self.encode(some, device).float(), dim=1)
            self._rows.update(zip(some, features, strict=True))
        rows = torch.stack([self._rows[text].to(device) for text in texts])
        while len(self._rows) > _KEPT:
            self._rows.popitem(last=False)
        return rows
