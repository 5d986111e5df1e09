"""A set reward as a reward of rows: each row's share in the set's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmalign.core.protocols import SetReward
from mmalign.core.types import Modality, Rollout, Scores, Status


@dataclass
class Credit:
    """Embeds every row once and scores it by its closed-form credit; `parts["set"]` is its set's value.

    Args:
        reward: what judges sets.
        over: the set: the whole batch, or each prompt's group on its own (Vendi per prompt is diversity per prompt).
        rows: rows embedded at a time (0: all).

    Rows whose embedding is not finite are errors and leave the set. A set of fewer than 3 rows has no credit:
    NOT_APPLICABLE. Where gradient flows, the *mean* over a set's rows has the gradient of the set's value.
    """

    reward: SetReward
    over: Literal["batch", "group"] = "batch"
    rows: int = 0
    range = (float("-inf"), float("inf"))
    whole = True  # a set cut in two is two other sets: calls are neither split nor cached by row

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the set reward judges."""
        return self.reward.modalities

    @property
    def differentiable(self) -> bool:
        """Whether the set reward is."""
        return self.reward.differentiable

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "reward" not in self.__dict__:  # while it is copied it holds nothing yet
            raise AttributeError(name)
        return getattr(self.reward, name)  # its options, `score`, `credit` and what else it can

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        embedding = self.embed(rollout)
        sound = embedding.detach().isfinite().all(1)
        if self.over == "batch":
            sets = torch.zeros(len(rollout), dtype=torch.long)
        else:
            sets = torch.unique(rollout.group, return_inverse=True)[1]
        return self._scored(embedding, sound, sets.to(embedding.device))

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Embeddings of B rows, `rows` at a time."""
        step = self.rows or len(rollout) or 1
        return torch.cat([self.reward.embed(rollout[i : i + step]) for i in range(0, len(rollout), step)])

    def _scored(self, embedding: Float[Tensor, "B D"], sound: Tensor, sets: Int[Tensor, " B"]) -> Scores:
        value = embedding.new_full((len(embedding),), float("nan"), dtype=torch.float32)
        whole, status = value.clone(), torch.full_like(value, int(Status.NOT_APPLICABLE), dtype=torch.int8)
        info = ["" if good else "the embedding is not finite" for good in sound.tolist()]
        for number in sets.unique().tolist():
            index = ((sets == number) & sound).nonzero().flatten()
            if len(index) < 3:
                for row in index.tolist():
                    info[row] = f"a set of {len(index)} rows has no credit; it takes 3"
                continue
            members = embedding[index]
            total = self.reward.score(members).float()
            # The value carries the set's gradient on every row: the mean over rows then has it once.
            share = self.reward.credit(members.detach()).float() + (total - total.detach())
            value, whole = value.index_put((index,), share), whole.index_fill(0, index, float(total.detach()))
            status[index] = int(Status.OK)
        status[~sound] = int(Status.ERROR)
        return Scores(value, status, parts={"set": whole}, info=info if any(info) else None)


def is_set(reward: Any) -> bool:
    """Does it embed rows and score sets of them?"""
    return hasattr(reward, "embed") and hasattr(reward, "score") and not isinstance(reward, Credit)
