"""A judge on a budget: the regression in closed form, who is asked, what is learned, its state, and a run in a mix."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.rewards.functional import ridge_sums, ridge_weights

WORDS = ["a red circle", "two blue squares", "a star", "one red star", "a small blue circle", "two stars", "a square"]


def test_the_regression_is_the_normal_equations_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=40)
    parts = [ridge_sums(torch.tensor(x[rows]), torch.tensor(y[rows])) for rows in (slice(0, 7), slice(7, 40))]
    weights = ridge_weights(parts[0] + parts[1], 0.1).numpy()
    centred = x - x.mean(0)
    want = np.linalg.solve(centred.T @ centred / 40 + 0.1 * np.eye(5), centred.T @ (y - y.mean()) / 40)
    assert np.allclose(weights[:-1], want, atol=1e-12) and weights[-1] == pytest.approx(y.mean() - x.mean(0) @ want)
    assert np.allclose(ridge_weights((parts[0] + parts[1]) / 2, 0.1).numpy(), weights, atol=1e-12)


def made(tiny_clip: Path, **options: Any) -> Any:
    inner = {"name": "length", "low": 4.0}
    return load_reward("budgeted", inner=inner, encoder=str(tiny_clip), **{"share": 0.25, "first": 14, **options})


def rollout_of(count: int, start: int = 0) -> Rollout:
    texts = [WORDS[(start + i) % len(WORDS)] for i in range(count)]
    return Rollout([Prompt("q")] * count, texts, torch.zeros(count, dtype=torch.long))


def test_all_are_judged_at_first_and_then_a_share(tiny_clip: Path) -> None:
    reward = made(tiny_clip)
    exact = load_reward("length", low=4.0)(rollout_of(8)).value
    assert torch.equal(reward(rollout_of(8)).value, exact) and reward.state_dict() == {}, "outside of training"
    reward.adapting = True
    judged = [reward(rollout_of(8)).parts["judged"].sum().item() for _ in range(4)]
    assert judged == [8, 8, 2, 2] and reward.labels == 20
    scores = reward(rollout_of(8))
    exactly = scores.parts["judged"] == 1
    assert torch.equal(scores.value[exactly], exact[exactly]) and scores.parts["miss"][exactly].isfinite().all()
    assert torch.equal(scores.value[~exactly], scores.parts["predicted"][~exactly]) and scores.valid.all()
    assert (scores.value - exact).abs().max() < 0.2, "texts that were judged before are known by their embeddings"


def test_the_judge_works_beside_training(tiny_clip: Path) -> None:
    """A step does not wait for it: predictions stand in, and labels are learned once they are there, all of them."""
    reward, free = made(tiny_clip, wait=False, share=0.5), threading.Event()
    reward.adapting = True
    for _ in range(2):
        assert reward(rollout_of(8)).parts["judged"].tolist() == [1.0] * 8, "at first every step waits"
    assert reward.labels == 16
    asked: list[int] = []

    class Slow:
        """The judge, once it is let go."""

        inner, range = reward._inner, reward.range

        def __call__(self, rollout: Rollout) -> Any:
            asked.append(len(rollout))
            assert free.wait(60)
            return self.inner(rollout)

    reward._inner = Slow()
    exact = load_reward("length", low=4.0)(rollout_of(8)).value
    for _ in range(3):  # the judge is busy with the first four rows all the while
        scores = reward(rollout_of(8))
        assert scores.parts["judged"].sum() == 0 and torch.equal(scores.value, scores.parts["predicted"])
        assert scores.valid.all() and (scores.value - exact).abs().max() < 0.2
    assert reward.labels == 16 and asked == [4]
    free.set()
    reward._under_way[0].result(60)
    reward(rollout_of(8))
    assert reward.labels == 20
    again = made(tiny_clip, wait=False)
    again.load_state_dict(reward.state_dict())
    assert again.labels == 20, "labels under way are not in a checkpoint"


def test_its_state_goes_on_exactly(tiny_clip: Path) -> None:
    reward, again = made(tiny_clip, decay=3.0), made(tiny_clip, decay=3.0)
    reward.adapting = again.adapting = True
    for _ in range(3):
        reward(rollout_of(8))
    again.load_state_dict(reward.state_dict())
    for start in (0, 3):
        assert torch.equal(reward(rollout_of(8, start)).value, again(rollout_of(8, start)).value)


def test_outputs_that_come_again_are_worth_less(tiny_clip: Path) -> None:
    reward = made(tiny_clip, share=1.0, decay=3.0)
    reward.adapting = True
    rollout = Rollout([Prompt("q"), Prompt("q"), Prompt("other")], ["a b c d"] * 3, torch.arange(3))
    assert reward(rollout).value.tolist() == pytest.approx([1, 1 / 8, 1])
    assert reward(rollout).value.tolist() == pytest.approx([1 / 27, 1 / 64, 1 / 8])


def test_in_a_mix_it_learns_and_lies_in_checkpoints(tiny_clip: Path) -> None:
    mixes = [Mix({"judge": Slot(made(tiny_clip))}) for _ in range(2)]
    for _ in range(3):
        mixes[0](rollout_of(8))
    state = mixes[0].state_dict()
    assert set(state) == {"slots/judge/sums", "slots/judge/calls"}
    mixes[1].load_state_dict(state)
    assert torch.equal(mixes[0](rollout_of(8)).value, mixes[1](rollout_of(8)).value)
    judged = mixes[0].guarded("judge")(rollout_of(8)).value  # as evaluation asks
    assert torch.equal(judged, load_reward("length", low=4.0)(rollout_of(8)).value)
    mixes[1].over_ranks = lambda total: total / 2  # of another process that has nothing
    before = mixes[1].slots["judge"].reward.labels
    mixes[1](rollout_of(8))
    assert mixes[1].slots["judge"].reward.labels == before + 1


def test_faults_are_told(tiny_clip: Path) -> None:
    with pytest.raises(ConfigError, match="'vendi' judges sets"):
        load_reward("budgeted", inner={"name": "vendi", "encoder": {"name": "spectral"}}, encoder={"name": "spectral"})
    with pytest.raises(ConfigError, match="encoder: missing"):
        load_reward("budgeted", inner={"name": "length"})
