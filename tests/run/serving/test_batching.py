"""Requests that come together are one batch where they can be, and each has its own answer whatever the others are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Rollout, Scores
from mmalign.rewards.engine.call import Guarded
from mmalign.run.serving.batching import Scored, Scorer


@dataclass
class Mean:
    """The mean of a picture; `sizes` has the rows of each call. Calls wait until the gate is open."""

    sizes: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    batch_dependent: bool = False

    modalities = frozenset({"image", "text"})
    range = (-100.0, 100.0)
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        self.gate.wait(10)
        self.sizes.append(len(rollout))
        if isinstance(rollout.output, list):
            if "end" in rollout.output:
                raise CapabilityError("cannot go on.")
            return Scores.of(torch.tensor([float(len(text)) for text in rollout.output]))
        own = rollout.output.mean((1, 2, 3))
        return Scores.of(own - own.mean() if self.batch_dependent else own)


def scored(reward: Mean, rollouts: list[Rollout], batch: int = 64, together: float = 0.3) -> list[Future[Scored]]:
    """The answers to requests that all wait before the first is begun."""
    scorer = Scorer(Guarded("mean", reward, monitor=True), torch.device("cpu"), batch, together)
    try:
        answers = [scorer.submit(rollout) for rollout in rollouts]
        reward.gate.set()
        wait(answers, 20)
        return answers
    finally:
        scorer.close()


def pictures(rows: int, size: int = 4, seed: int = 0) -> Rollout:
    draw = torch.Generator().manual_seed(seed)
    return Rollout.of([f"p{row}" for row in range(rows)], torch.rand(rows, 3, size, size, generator=draw))


def test_small_requests_are_one_batch_and_every_row_has_its_own_value() -> None:
    reward, rollouts = Mean(), [pictures(rows, seed=rows) for rows in (1, 3, 2)]
    answers = scored(reward, rollouts)
    assert reward.sizes == [6]
    for answer, rollout in zip(answers, rollouts, strict=True):
        assert torch.equal(answer.result(0).scores.value, rollout.output.mean((1, 2, 3)))
        assert answer.result(0).rows == 6


def test_a_batch_holds_as_many_rows_as_it_may_and_only_such_of_one_shape() -> None:
    reward = Mean()
    answers = scored(reward, [pictures(3), pictures(3), pictures(2, size=6), pictures(1)], batch=4)
    assert sorted(reward.sizes) == [2, 3, 4]
    assert [answer.result(0).rows for answer in answers] == [4, 3, 2, 4]


def test_a_full_batch_waits_for_nobody_and_a_larger_request_is_scored_in_parts() -> None:
    reward, start = Mean(), time.monotonic()
    answers = scored(reward, [pictures(10)], batch=4, together=30.0)
    assert time.monotonic() - start < 15
    assert reward.sizes == [4, 4, 2]
    assert torch.equal(answers[0].result(0).scores.value, pictures(10).output.mean((1, 2, 3)))


def test_rows_that_depend_on_their_batch_are_scored_request_by_request_and_whole() -> None:
    reward, rollouts = Mean(batch_dependent=True), [pictures(5, seed=1), pictures(2, seed=2)]
    answers = scored(reward, rollouts, batch=4)
    assert sorted(reward.sizes) == [2, 5]
    for answer, rollout in zip(answers, rollouts, strict=True):
        own = rollout.output.mean((1, 2, 3))
        assert torch.allclose(answer.result(0).scores.value, own - own.mean(), atol=1e-6)


def test_what_ends_the_call_of_one_is_nothing_to_those_beside_it() -> None:
    requests = [Rollout.of(["p"], [text]) for text in ("good", "end", "better")]
    first, bad, last = scored(Mean(), requests)
    assert first.result(0).scores.value.tolist() == [4.0] and last.result(0).scores.value.tolist() == [6.0]
    with pytest.raises(CapabilityError, match="cannot go on"):
        bad.result(0)


def test_a_server_that_ends_leaves_nobody_waiting() -> None:
    reward = Mean()
    scorer = Scorer(Guarded("mean", reward, monitor=True), torch.device("cpu"), 1, 0.0)
    begun: list[Future[Scored]] = [scorer.submit(pictures(1)) for _ in range(3)]
    while len(scorer._jobs) == 3:
        time.sleep(0.01)
    scorer.close(patience=0.0)
    reward.gate.set()
    wait(begun, 10)
    assert begun[0].result(0).rows == 1 and all(answer.cancelled() for answer in begun[1:])
    with pytest.raises(RuntimeError, match="ends"):
        scorer.submit(pictures(1))
