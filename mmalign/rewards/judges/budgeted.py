"""A judge of a share of the outputs; a model of its verdicts, learned beside training, judges the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import ConfigError
from mmalign.core.options import Count, NotNegative, Positive, PositiveShare
from mmalign.core.protocols import Mean, one_process
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Modality, Rollout, Scores, Status, device_of
from mmalign.rewards.encoders import make_encoder
from mmalign.rewards.engine.cache import row_keys
from mmalign.rewards.functional import ridge_sums, ridge_weights
from mmalign.rewards.judges._around import AroundReward
from mmalign.rewards.models.asking import Make

__all__ = ["Budgeted"]

_JUDGING = ThreadPoolExecutor(max_workers=1, thread_name_prefix="budgeted")  # no thread before the first work


@dataclass
class Budgeted(AroundReward):
    """The inner reward of a share of the rows; of the others what a ridge regression has learned of it.

    The online reward model of ONI (2410.23022), whose judge is a language model that labels what it can beside
    training. By default a fixed share of every step is labelled and the step waits for it, so that a run can be
    repeated. With `wait: false` the judge works beside training, as in the paper: once `first` rows are labelled all
    rows of a step have predictions, a share of them goes to the judge whenever it is free, and what it says is learned
    at the next step that finds it done. How many labels there are then depends on the clock: such a run cannot be
    repeated exactly, and labels under way are not in a checkpoint. The regression is on embeddings of outputs, over all
    labels so far, of every process; it is a part of the checkpoint. It learns in training alone: held-out outputs are
    all judged by the inner reward. With `decay` an output that comes again for its prompt is worth less:
    low + (r - low) / countᵖ, with p = 3 in the paper.

    `parts`: `judged`, 1 where the inner reward was asked; `predicted`; and `miss`, |predicted - r| of rows that were
    judged, before their labels were learned.

    Args:
        inner: the judge, {name: …, options…}, with a finite range.
        encoder: what outputs are embedded with: a CLIP checkpoint, or an encoder's spec {name: …, options…}; required.
        share: of the rows of a step that are judged.
        first: rows that are all judged, before the regression stands in.
        penalty: of the squared weights, against the mean squared error.
        wait: for the judge, in every step; else it labels beside training.
        decay: p, of outputs that come again; 0: they keep their worth. Counts are of one process's rows.
    """

    inner: dict[str, Any]
    encoder: str | dict[str, Any] = ""
    share: PositiveShare = 0.25
    first: Count = 64
    penalty: Positive = 1e-3
    decay: NotNegative = 0.0
    wait: bool = True
    make: Make | None = field(default=None, repr=False)
    differentiable = False
    deterministic = False  # it learns
    batch_dependent = True  # which rows are judged depends on the others; calls are neither split nor cached by row
    adapting = False  # in training it is switched on
    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)
    _sums: Tensor | None = field(default=None, init=False, repr=False)
    _calls: int = field(default=0, init=False, repr=False)
    _under_way: tuple[Future[Scores], Tensor] | None = field(default=None, init=False, repr=False, compare=False)
    _seen: Counter[bytes] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        reward = self._built("budgeted")
        if not all(map(math.isfinite, reward.range)):
            raise ConfigError(f"inner: has no finite range {reward.range}, outside of which no prediction should lie.")
        self._encoder = make_encoder(self.encoder)
        self.make = None

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that are judged and embedded."""
        return frozenset(self._inner.modalities) & frozenset(self._encoder.modalities)

    @without_gradient
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        if not self.adapting:
            return self._inner(rollout)
        features = self._encoder.embed(rollout).float().cpu()
        picked = self._chosen(features)
        if not self.wait:
            picked = self._beside(features, picked, rollout)
        before = self._predicted(features)
        judged = self._inner(rollout[picked]).to("cpu") if len(picked) else Scores.of(torch.zeros(0))
        self._learn(features[picked][judged.valid], judged.value[judged.valid])
        self._calls += 1
        scores = self._filled(features, picked, judged)
        scores.parts["miss"][picked] = (before[picked] - judged.value).abs()
        return self._decayed(scores, rollout).to(device_of(rollout.output))

    def state_dict(self) -> dict[str, Tensor]:
        """The sums of the regression, how many calls chose rows, and how often outputs came; {} before any call."""
        state = {} if self._sums is None else {"sums": self._sums, "calls": torch.tensor(self._calls)}
        if self._seen:
            state["seen"] = torch.tensor([list(key) for key in self._seen], dtype=torch.uint8)
            state["counts"] = torch.tensor(list(self._seen.values()))
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""
        self._sums = state["sums"].double() if "sums" in state else None
        self._calls = int(state["calls"]) if "calls" in state else 0
        keys = [bytes(row) for row in state["seen"].tolist()] if "seen" in state else []
        self._seen = Counter(dict(zip(keys, state["counts"].tolist() if keys else [], strict=True)))

    @property
    def labels(self) -> float:
        """How many labels the regression has, of the average process."""
        return 0.0 if self._sums is None else float(self._sums[-2, -2])

    def _chosen(self, features: Float[Tensor, "B D"]) -> Tensor:
        """The rows to be judged: a drawn share, all at first, and always those that cannot be embedded."""
        rows = len(features)
        if self.labels < max(self.first, 1):
            return torch.arange(rows)
        drawn = torch.randperm(rows, generator=stream(0, "budgeted", self._calls))[: math.ceil(self.share * rows)]
        blind = features.isnan().any(1).nonzero().flatten()
        return torch.cat([drawn, blind]).unique()

    def _beside(self, features: Float[Tensor, "B D"], picked: Tensor, rollout: Rollout) -> Tensor:
        """Learn what the judge has finished, give it the rows that were picked if it is free, and say which rows cannot
        wait for it: all until enough are labelled, then those that cannot be embedded."""
        enough = self.labels >= max(self.first, 1)
        arrived, values = features[:0], torch.zeros(0)
        if self._under_way is not None and self._under_way[0].done():
            judged, given = self._under_way[0].result(), self._under_way[1]
            arrived, values, self._under_way = given[judged.valid], judged.value[judged.valid], None
        self._learn(arrived, values)  # in every process, at every step: it may sum over processes
        if not enough:
            return picked
        blind = features.isnan().any(1)
        later = picked[~blind[picked]]
        if self._under_way is None and len(later):
            part = rollout[later].to("cpu")
            work = _JUDGING.submit(lambda: self._inner(part).to("cpu"))
            self._under_way = (work, features[later])
        return blind.nonzero().flatten()

    def _learn(self, features: Float[Tensor, "N D"], values: Float[Tensor, " N"]) -> None:
        sound = ~features.isnan().any(1)
        sums = self.over_ranks(ridge_sums(features[sound], values[sound]))
        self._sums = sums if self._sums is None else self._sums + sums

    def _predicted(self, features: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """What the regression says, within the range; NaN while it knows no label."""
        if self._sums is None or not self.labels:
            return torch.full((len(features),), float("nan"))
        weights = ridge_weights(self._sums, self.penalty).float()
        return (features @ weights[:-1] + weights[-1]).clamp(*self.range)

    def _filled(self, features: Float[Tensor, "B D"], picked: Tensor, judged: Scores) -> Scores:
        """The judge's scores of the rows that were picked, and predictions elsewhere."""
        rows, predicted = len(features), self._predicted(features)
        value, status, info = predicted.clone(), torch.zeros(rows, dtype=torch.int8), [""] * rows
        value[picked], status[picked] = judged.value, judged.status
        for place, row in enumerate(picked.tolist()):
            info[row] = judged.info[place] if judged.info else ""
        lost = value.isnan() & (status == Status.OK)  # the judge failed on every row so far
        status[lost] = int(Status.ERROR)
        info = ["no label was learned yet" if bad else why for bad, why in zip(lost.tolist(), info, strict=True)]
        given = torch.zeros(rows).index_fill(0, picked, 1.0)
        parts = {"judged": given, "predicted": predicted, "miss": torch.full((rows,), float("nan"))}
        return Scores(value, status, parts=parts, info=info if any(info) else None)

    def _decayed(self, scores: Scores, rollout: Rollout) -> Scores:
        if self.decay:
            for row, key in enumerate(row_keys("budgeted", rollout)):
                self._seen[key] += 1
                worth = (scores.value[row] - self.range[0]) / self._seen[key] ** self.decay
                scores.value[row] = self.range[0] + worth
        return scores
