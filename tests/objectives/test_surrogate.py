import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.rng import Noise
from mmalign.core.types import Rollout, Scores, Status
from mmalign.objectives._advantages import rows_of_groups_that_train, subtract_kl, whiten
from mmalign.objectives._policy_gradient import (
    Region,
    gamma_weight,
    importance_log_ratio,
    surrogate_objective,
    trust_region,
)
from mmalign.objectives.grpo import GRPO
from mmalign.rewards import Mix
from mmalign.rewards.combine.weighted_sum import WeightedSum
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn, moved, outputs
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts

MASK = torch.tensor([[True, True, False], [True, True, True]])
FREE: dict[str, Any] = {"baseline": "none", "std": "none", "whiten": True}
METHODS: dict[str, dict[str, Any]] = {
    "gspo": {"ratio": "sequence", "clip": 0.05},
    "cispo": {"surrogate": "cispo", "clip": 1.0, "clip_high": 4.0, "weighting": "per_step"},
    "sapo": {"surrogate": "sapo"},
    "vespo": {"surrogate": "vespo", "ratio": "joint"},
    "rloo": {"baseline": "leave_one_out", "std": "none", "ratio": "joint", "reward_beta": 0.05},
    "reinforce++": {**FREE, "reward_beta": 0.05, "reward_kl": "to_go"},
    "reinforce++ baseline": {"std": "none", "whiten": "steps", "beta": 0.01, "divergence": "k2"},
    "scst": {"baseline": "greedy", "std": "none", "surrogate": "score", "weighting": "per_step"},
    "dynamic": {"keep_groups": 2, "clip_high": 0.28, "weighting": "per_step"},
}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS.keys())
def test_learns_and_splits_over_rows(options: dict[str, Any]) -> None:
    policy, objective = GaussianPolicy(double=True), GRPO(NearPoint(), group_size=5, **options)
    experience = collect(policy, objective, prompts(3))
    moved(policy)
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 1e-3
    assert (gradient(policy, objective, experience, 4) - whole).norm() <= 1e-10 * whole.norm()
    policy, batch, goal = GaussianPolicy(), prompts(3), torch.tensor([1.0, -1.0])
    before = (outputs(policy, batch) - goal).square().sum(1).mean()
    learn(policy, replace(objective, group_size=8), batch, steps=20, lr=0.1, updates=2)
    assert (outputs(policy, batch) - goal).square().sum(1).mean() < 0.7 * before


@pytest.mark.parametrize("kind", ["clip", "cispo", "sapo", "vespo", "score"])
def test_every_surrogate_starts_as_the_policy_gradient(kind: Any) -> None:
    said = torch.randn(2, 3).requires_grad_()
    advantage = torch.tensor([[1.5], [-0.5]])
    gain, ratio = surrogate_objective(
        kind, importance_log_ratio(said - said.detach(), MASK, "step"), said, advantage, Region(1, 0.2, 0.2)
    )
    assert (ratio == 1).all()
    slope = torch.autograd.grad(gain[MASK].sum(), said)[0]
    assert torch.allclose(slope, (advantage * MASK).expand(2, 3), rtol=1e-6)


@pytest.mark.parametrize(("clip", "clip_high"), [(0.2, 4.0), (10.0, 4.0), (1.0, 4.0), (0.2, None), (0.3, 0.3)])
def test_cispo_weighs_as_verl_does(clip: float, clip_high: float | None) -> None:
    """verl's `compute_policy_loss_cispo`: clamp(ratio, 1 - clip_ratio_low, 1 + clip_ratio_high), without gradient."""
    ratio = torch.tensor([[3.0, 0.5, 9.0, 0.9]], dtype=torch.float64)
    said = torch.zeros_like(ratio).requires_grad_()
    objective = GRPO(None, surrogate="cispo", clip=clip, clip_high=clip_high)
    gain, found = surrogate_objective("cispo", said + ratio.log(), said, torch.ones(1, 1), objective._region(1))
    weight = torch.autograd.grad(gain.sum(), said)[0]
    high = clip if clip_high is None else clip_high
    assert torch.allclose(weight, ratio.clamp(1 - clip, 1 + high)) and torch.allclose(found, ratio)


def test_cispo_counts_what_it_cuts_whatever_the_advantage() -> None:
    policy, objective = GaussianPolicy(), GRPO(NearPoint(), group_size=4, surrogate="cispo", clip=0.5, clip_high=1.0)
    experience = collect(policy, objective, prompts(2))
    shift = torch.tensor([math.log(3.0), math.log(0.2), 0.0, 0.0]).repeat(2)[:, None]
    old = replace(experience.old, log_prob=experience.old.log_prob - shift)
    metrics = accumulate(policy, objective, replace(experience, old=old))
    assert float(metrics["ratio/clipped"]) == pytest.approx(0.5)


def test_levels_by_hand() -> None:
    delta = torch.tensor([[0.2, 0.4, 9.0], [1.0, 2.0, 3.0]])
    assert importance_log_ratio(delta, MASK, "step").tolist()[0] == pytest.approx([0.2, 0.4, 0])
    assert torch.allclose(importance_log_ratio(delta, MASK, "sequence"), torch.tensor([[0.3, 0.3, 0], [2.0, 2, 2]]))
    assert torch.allclose(importance_log_ratio(delta, MASK, "joint"), torch.tensor([[0.6, 0.6, 0], [6.0, 6, 6]]))


def test_the_cap_bounds_what_a_bad_step_may_cost() -> None:
    delta, bad = torch.tensor([[math.log(5.0)]]), torch.tensor([[-1.0]])
    said, region = torch.zeros(1, 1), Region(1, 0.2, 0.2)
    assert surrogate_objective("clip", delta, said, bad, region)[0].item() == pytest.approx(-5)
    assert surrogate_objective("clip", delta, said, bad, region, 3.0)[0].item() == pytest.approx(-3)
    assert surrogate_objective("clip", delta, said, -bad, region, 3.0)[0].item() == pytest.approx(1.2)


def test_gamma_weights_by_hand() -> None:
    ratio = torch.tensor([[1.0, 0.5, 2.0]])
    for sign, k, rate in ((1.0, 2, 3), (-1.0, 3, 2)):
        want = [math.exp(rate) * r**k * math.exp(-rate * r) for r in (1.0, 0.5, 2.0)]
        assert gamma_weight(ratio, torch.tensor([[sign]]))[0].tolist() == pytest.approx(want, rel=1e-5)


def test_part_of_the_steps_is_no_output() -> None:
    policy, objective = GaussianPolicy(), GRPO(NearPoint(), group_size=4, ratio="sequence")
    with pytest.raises(CapabilityError, match=r"ratio: sequence is of whole outputs.*trainer.steps_per_pass: 0"):
        gradient(policy, objective, collect(policy, objective, prompts(3)), spans=1)


def test_whitened_is_numpys_over_what_counts() -> None:
    x = torch.tensor([[1.0, 2.0, float("nan")], [4.0, 8.0, -3.0]])
    got = whiten(x, MASK, 1e-4)
    kept = np.array([1.0, 2, 4, 8, -3])
    assert np.allclose(got[MASK], (kept - kept.mean()) / (kept.std() + 1e-4), atol=1e-6) and got[0, 2] == 0
    near = torch.tensor([[0.7], [0.7 + 6e-8]])
    assert whiten(near, torch.ones(2, 1, dtype=torch.bool)).abs().max() == 0


def test_outputs_whitened_by_their_tokens_are_the_authors() -> None:
    """OpenRLHF repeats a row's advantage for each of its tokens and normalises over all of them."""
    advantage = torch.tensor([[-0.5], [0.5], [-1.5], [1.5]])
    lengths = [1, 9, 1, 1]
    steps = torch.zeros(4, 9, dtype=torch.bool)
    for row, length in enumerate(lengths):
        steps[row, :length] = True
    got = whiten(advantage, torch.ones(4, 1, dtype=torch.bool), 0.0, times=steps)[:, 0]
    assert got.tolist() == pytest.approx([-1.213, 0.243, -2.668, 1.698], abs=5e-4)
    tokens = np.repeat(advantage[:, 0].numpy().astype(np.float64), lengths)
    assert np.allclose(np.repeat(got.numpy(), lengths), (tokens - tokens.mean()) / tokens.std(), atol=1e-6)
    plain = whiten(advantage, torch.ones(4, 1, dtype=torch.bool), 0.0)[:, 0]
    assert plain.tolist() == pytest.approx([-0.447, 0.447, -1.342, 1.342], abs=5e-4)


def test_dead_groups_are_zeros_of_the_whitened_batch() -> None:
    values = [0.0, 1.0, 2.0, 2.0]
    for how, dropped in ((True, 0.5), ("steps", 0.0)):
        objective = GRPO(Fixed(values), group_size=2, std="none", whiten=how)  # type: ignore[arg-type]
        policy = GaussianPolicy()
        experience = collect(policy, objective, prompts(2))
        times = experience.rollout.mask.sum(1).tolist() if how == "steps" else [1] * 4
        counted = np.repeat([-0.5, 0.5, 0, 0], times)
        want = (np.array([-0.5, 0.5, 0, 0]) - counted.mean()) / (counted.std() + 1e-4)
        assert np.allclose(experience.advantage[:, 0], want, atol=1e-5)
        assert accumulate(policy, objective, experience)["rows/dropped"] == dropped


def test_whitening_covers_every_process() -> None:
    """Two halves, each told the mean over both of its sums, are whitened as one batch."""
    x, valid = torch.randn(6, 1), torch.ones(6, 1, dtype=torch.bool)
    log: list[list[torch.Tensor]] = [[], []]

    def noted(sums: torch.Tensor, part: int) -> torch.Tensor:
        log[part].append(sums)
        return sums

    for part in (0, 1):
        whiten(x[3 * part : 3 * part + 3], valid[:3], over_ranks=partial(noted, part=part))
    first = (log[0][0] + log[1][0]) / 2
    centre = first[0] / first[2]
    squares = (x.double() - centre).square().sum() / 2
    answers = iter([first, squares])
    got = whiten(x[:3], valid[:3], over_ranks=lambda _: next(answers))
    assert torch.allclose(got, whiten(x, valid)[:3], atol=1e-6)


def test_kl_in_the_reward_by_hand() -> None:
    value, valid = torch.tensor([[1.0], [2.0]]), torch.ones(2, 1, dtype=torch.bool)
    cost = torch.tensor([[0.1, 0.2, 7.0], [0.1, 0.2, 0.4]])
    whole, _ = subtract_kl(value, valid, cost, MASK, "sequence")
    assert whole[:, 0].tolist() == pytest.approx([0.7, 1.3])
    ahead, live = subtract_kl(value, valid, cost, MASK, "to_go")
    assert ahead[0, :2].tolist() == pytest.approx([0.7, 0.8]) and ahead[1].tolist() == pytest.approx([1.3, 1.4, 1.6])
    assert torch.equal(live, MASK)


def test_self_critical_training_measures_against_the_greedy_answer() -> None:
    class Greedy(GaussianPolicy):
        def generate(self, batch: Any, rng: Noise) -> Rollout:
            return super().sample(batch, torch.Generator().manual_seed(5))

    def reward(rollout: Rollout) -> Scores:
        scores = NearPoint()(rollout)
        if len(rollout) == 2:  # the greedy answers, of which the second cannot be scored
            scores.status[1] = Status.ERROR
            scores.value[1] = float("nan")
        return scores

    policy = Greedy()
    objective = GRPO(reward, group_size=3, baseline="greedy", std="none", surrogate="score")
    experience = collect(policy, objective, prompts(2))
    own = NearPoint()(experience.rollout).value
    against = NearPoint()(policy.generate(prompts(2), torch.Generator())).value
    assert torch.allclose(experience.advantage[:3, 0], own[:3] - against[0])
    assert experience.mask[:3, 0].all() and not experience.mask[3:].any()
    assert accumulate(policy, objective, experience)["rows/dropped"] == 0.5


def test_scoring_the_greedy_answer_teaches_the_combination_nothing() -> None:
    class Greedy(GaussianPolicy):
        def generate(self, batch: Any, rng: Noise) -> Rollout:
            return super().sample(batch, torch.Generator().manual_seed(5))

    sum_of_both = WeightedSum(scale="running")
    reward = Mix({"near": NearPoint(), "other": NearPoint((0.9, -0.9))}, combination=sum_of_both)
    collect(Greedy(), GRPO(reward, group_size=3, baseline="greedy", std="none", surrogate="score"), prompts(2))
    assert sum_of_both.state_dict()["near"][0] == 6  # the sampled rows, and none of the greedy ones


@pytest.mark.parametrize("options", [{"baseline": "none", "std": "none"}, {}], ids=["none", "mean"])
def test_groups_that_cannot_train_are_not_kept(options: dict[str, Any]) -> None:
    nan, bad = float("nan"), [Status.ERROR] * 2 + [Status.OK] * 6
    objective = GRPO(Fixed([nan, nan, 1, 0, 0, 1, 2, 4], bad), group_size=2, keep_groups=2, **options)
    experience = collect(GaussianPolicy(), objective, prompts(4))
    assert experience.mask.any(1).all() and [p.text for p in experience.rollout.prompts] == ["xx"] * 2 + ["xxx"] * 2


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("kind", ["clip", "cispo", "sapo", "vespo", "score"])
def test_a_ratio_beyond_floats_spoils_no_gradient(kind: Any, advantage: float) -> None:
    delta = torch.tensor([[100.0, -200.0, 0.1]], requires_grad=True)
    gain, ratio = surrogate_objective(
        kind, delta, delta, torch.tensor([[advantage]]), trust_region(0.2, None, "nats", 1)
    )
    assert gain.isfinite().all() and ratio.isfinite().all()
    assert torch.autograd.grad(gain.sum(), delta)[0].isfinite().all()


def test_one_output_is_enough_against_no_group() -> None:
    objective = GRPO(NearPoint(), group_size=1, **FREE)
    assert collect(GaussianPolicy(), objective, prompts(4)).mask.any(1).all()


def test_dynamic_sampling_keeps_live_groups_and_as_many_everywhere() -> None:
    live = torch.tensor([False, False, True, True, False, False, True, True])
    assert rows_of_groups_that_train(live, 2, 1).tolist() == [2, 3]
    assert rows_of_groups_that_train(live, 2, 3).tolist() == [0, 1, 2, 3, 6, 7]
    objective = GRPO(Fixed([1.0, 1, 0, 1, 2, 2, 3, 4]), group_size=2, keep_groups=3, beta=0.1)
    policy = GaussianPolicy()
    experience = collect(policy, objective, prompts(4))
    assert len(experience) == 6 and experience.mask.any(1).tolist() == [False, False, True, True, True, True]
    assert experience.ref is not None and len(experience.ref.log_prob) == 6
    assert accumulate(policy, objective, experience)["groups/live"] == 0.5


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        ({"std": "none"}, 75.0),  # raw rewards may have any range
        ({"std": "none", "advantage_clip": 5.0}, 5.0),
        ({"std": "none", "advantage_clip": None}, 75.0),
        ({"std": "group", "std_floor": 0.0}, 3**0.5),
        ({"std": "global", "std_floor": 0.0, "advantage_clip": 1.0}, 1.0),
    ],
)
def test_only_advantages_in_units_of_a_spread_are_limited(options: dict[str, Any], largest: float) -> None:
    objective = GRPO(Fixed([100.0, 0.0, 0.0, 0.0]), group_size=4, **options)
    assert collect(GaussianPolicy(), objective, prompts(1)).advantage.max().item() == pytest.approx(largest)


@pytest.mark.parametrize("what", ["keep", "mask", "exclude"])
def test_truncated_outputs(what: Any) -> None:
    class Cut(GaussianPolicy):
        def sample(self, batch: Any, rng: torch.Generator) -> Rollout:
            cut = torch.arange(len(batch)) % 4 == 3
            return replace(super().sample(batch, rng), truncated=cut)

    objective = GRPO(Fixed([0.0, 1.0, 2.0, 9.0]), group_size=4, std="none", truncated=what)
    experience = collect(Cut(), objective, prompts(1))
    assert experience.mask.any(1).tolist() == [True, True, True, what == "keep"]
    assert experience.advantage[:3, 0].tolist() == ([-1, 0, 1] if what == "exclude" else [-3, -2, -1])
    assert accumulate(Cut(), objective, experience)["rows/dropped"] == (0 if what == "keep" else 0.25)
