"""What counts as good on each prompt: a quantile of what the policy's start scores on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float

from mmalign.core.tensor import Tensor
from mmalign.core.types import Scores

Known = dict[bytes, dict[str, float]]


def quantile_reference(scores: Scores, quantile: float) -> float:
    """The `quantile` of the values of one prompt's outputs, between neighbours in proportion; NaN without any."""
    values = scores.value.detach()[scores.valid].double().cpu()
    return float(values.quantile(quantile)) if len(values) else float("nan")


class BaseReferences:
    """References by prompt and slot; a prompt is known by the digest of all that it holds.

    Wang et al. 2024 (2402.00742): r_ref(x) is the 85th percentile of the untrained policy's rewards on x. It never
    changes once it is known, and lies in checkpoints.
    """

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile
        self.known: Known = {}

    def unknown(self, keys: Sequence[bytes]) -> list[int]:
        """Return the places of prompts that have no reference yet, each prompt once."""
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return sorted(place for key, place in first.items() if key not in self.known)

    def take_in(self, key: bytes, parts: Mapping[str, Scores]) -> None:
        """Learn the references of one prompt from the scores of outputs that the policy's start made of it."""
        self.known[key] = {name: quantile_reference(scores, self.quantile) for name, scores in parts.items()}

    def of(self, keys: Sequence[bytes], names: Sequence[str]) -> Float[Tensor, "K B"]:
        """References of B rows for K slots; NaN where there is none."""
        nothing: dict[str, float] = {}
        rows = [[self.known.get(key, nothing).get(name, float("nan")) for key in keys] for name in names]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(names), len(keys))

    def state_dict(self) -> dict[str, Tensor]:
        """Digests (N, 32) and the references (N,) of each slot; {} while nothing is known."""
        if not self.known:
            return {}
        digests = torch.tensor([list(key) for key in self.known], dtype=torch.uint8)
        names = list(next(iter(self.known.values())))
        columns = {
            f"reference/{name}": torch.tensor([own[name] for own in self.known.values()], dtype=torch.float64)
            for name in names
        }
        return {"prompts": digests, **columns}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        columns = {name.removeprefix("reference/"): value.tolist() for name, value in state.items() if "/" in name}
        digests = [bytes(row) for row in state["prompts"].tolist()] if state else []
        self.known = {key: {name: values[i] for name, values in columns.items()} for i, key in enumerate(digests)}
