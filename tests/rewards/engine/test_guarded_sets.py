"""Set rewards under the guard: what an objective re-scores is counted, timed and logged; no random number shifts."""

import numpy as np
import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.protocols import Reward, SetReward
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives._selection import EmbeddedOutputs, set_rewards
from mmalign.rewards import Guarded, Mix, Slot
from mmalign.rewards.engine.call import GuardedSet, guard
from tests.rewards.doubles import Brightness
from tests.toys import NearGaussian


def points(rows=6):
    output = torch.randn(rows, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return Rollout([Prompt("p")] * rows, output, torch.zeros(rows, dtype=torch.long))


def guarded_set(name: str, reward: SetReward) -> GuardedSet:
    guarded = guard(name, reward)
    assert isinstance(guarded, GuardedSet)
    return guarded


def numpy_position() -> int:
    """How far numpy's global generator is."""
    return np.random.get_state(legacy=False)["state"]["pos"]  # noqa: NPY002


class Drawing(NearGaussian):
    """Draws from every global generator."""

    def embed(self, rollout):
        torch.rand(3), np.random.rand()  # noqa: NPY002
        return super().embed(rollout)

    def score(self, embedding):
        torch.rand(3), np.random.rand()  # noqa: NPY002
        return super().score(embedding)


class Swapping(NearGaussian):
    """Scores all swaps at once."""

    def swap_scores(self, better, other, start):
        sets = [torch.cat([better[:i], other[i : i + 1], better[i + 1 :]]) for i in range(start, len(better))]
        return torch.stack([self.score(one) for one in sets])


class Alone(NearGaussian):
    """Says what a set cannot be."""

    isolated = True


def test_a_guarded_set_is_a_reward_of_rows_and_of_sets():
    guarded, plain = guard("near", NearGaussian()), guard("bright", Brightness())
    assert isinstance(guarded, GuardedSet) and isinstance(guarded, SetReward) and isinstance(guarded, Reward)
    assert type(plain) is Guarded and not isinstance(plain, SetReward)
    rollout, judge = points(), NearGaussian()
    rows = guarded.embed(rollout)
    assert torch.equal(rows, judge.embed(rollout)) and torch.equal(guarded.score(rows), judge.score(rows))
    assert torch.equal(guarded.credit(rows), judge.credit(rows))
    assert torch.allclose(guarded(rollout).value, judge.credit(rows).float())


def test_the_log_has_the_value_of_the_set_that_was_embedded():
    guarded, rollout, judge = guarded_set("near", NearGaussian()), points(), NearGaussian()
    rows = guarded.embed(rollout)
    for some in (rows[:3], rows[3:]):
        guarded.score(some)
    metrics = guarded.metrics()
    assert float(metrics["mean"]) == pytest.approx(float(judge.score(judge.embed(rollout))))
    assert float(metrics["ok"]) == 1 and float(metrics["sets"]) == 2 and float(metrics["sets_seconds"]) > 0
    assert guarded.metrics() == {}


def test_a_pool_of_a_mix_is_in_its_metrics_under_the_slots_name():
    mix, rollout = Mix({"near": Slot(NearGaussian(), weight=2.0)}), points()
    pool, judge = EmbeddedOutputs.of(set_rewards(mix), rollout), NearGaussian()
    rows = torch.arange(3)
    assert pool.value(rows) == pytest.approx(2.0 * float(judge.score(judge.embed(rollout)[:3])))
    metrics = mix.metrics()
    assert float(metrics["reward/near"]) == pytest.approx(float(judge.score(judge.embed(rollout))))
    assert float(metrics["reward/near/sets"]) == 1


def test_global_random_numbers_are_left_alone():
    guarded = guarded_set("draws", Drawing())
    state, position = torch.get_rng_state(), numpy_position()
    guarded.score(guarded.embed(points()))
    assert torch.equal(torch.get_rng_state(), state) and numpy_position() == position


def test_swaps_are_offered_where_the_reward_has_them_and_counted():
    assert not hasattr(guard("near", NearGaussian()), "swap_scores")
    guarded = guarded_set("near", Swapping())
    better, other = guarded.embed(points(8)).split(4)
    assert torch.equal(guarded.swap_scores(better, other, 1), Swapping().swap_scores(better, other, 1))
    assert float(guarded.metrics()["sets"]) == 3


def test_what_no_set_reward_can_be_is_refused():
    with pytest.raises(CapabilityError, match="reward 'bright' only scores single rows"):
        GuardedSet("bright", Brightness())
    with pytest.raises(ConfigError, match="reward 'alone': a set reward cannot be `isolated`: its rows are one set"):
        guard("alone", Alone())
    with pytest.raises(CapabilityError, match=r"reward 'near' judges image; these outputs are text\."):
        guarded_set("near", NearGaussian()).embed(Rollout([Prompt("p")], ["a text"], torch.zeros(1, dtype=torch.long)))
