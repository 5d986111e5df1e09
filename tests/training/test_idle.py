"""A run in which nothing is learned says so and ends; one that learns now and then goes on."""

import pytest
import torch

from mmalign.core.errors import ScoreError
from mmalign.core.types import Scores, Status
from mmalign.objectives.grpo import GRPO
from mmalign.rewards import Mix, Slot
from mmalign.rewards.combine.weighted_sum import WeightedSum
from mmalign.training.failures import FEW, Idle
from mmalign.training.loop import training_loop
from tests.toys import NearPoint
from tests.training.problem import Problem


class Silent:
    """Gives every row `status` and `value`; from call `wakes` on it scores like `NearPoint`."""

    modalities, range, differentiable = frozenset({"image"}), (-100.0, 1.0), False

    def __init__(self, status, value=float("nan"), wakes=10**6, why=""):
        self.status, self.value, self.wakes, self.why, self.calls = status, value, wakes, why, 0

    def __call__(self, rollout):
        self.calls += 1
        if self.calls >= self.wakes:
            return NearPoint()(rollout)
        rows = len(rollout)
        status = torch.full((rows,), int(self.status), dtype=torch.int8)
        return Scores(torch.full((rows,), self.value), status, info=[self.why] * rows if self.why else None)


def run(reward, **options):
    problem = Problem(objective=GRPO(reward=reward, group_size=4), **options)
    training_loop(problem.policy, problem.objective, problem.session)
    return problem.session.step


def ended(reward, **options):
    """The step it ended after, and what it said."""
    problem = Problem(objective=GRPO(reward=reward, group_size=4), **options)
    with pytest.raises(ScoreError) as caught:
        training_loop(problem.policy, problem.objective, problem.session)
    return problem.session.step, str(caught.value)


@pytest.mark.parametrize("status", [Status.NOT_APPLICABLE, Status.ERROR, Status.TIMEOUT])
def test_a_run_of_which_no_output_has_a_score_ends_within_a_few_steps(status):
    reward = Mix({"song": Silent(status, why="fewer than 2 frames")}, failed_share=1.0)
    step, said = ended(reward, steps=50)
    assert step == FEW and f"nothing was learned in the last {FEW} steps: no output could be scored" in said
    assert f"reward 'song', its last 48 rows: 48 {status.label} (fewer than 2 frames)" in said


def test_one_part_that_never_applies_silences_the_sum_unless_it_is_renormalised():
    slots = {"near": Slot(NearPoint()), "never": Slot(Silent(Status.NOT_APPLICABLE))}
    step, said = ended(Mix(slots), steps=50)
    assert step == FEW and "'near', its last 48 rows: 48 ok" in said and "'never', its last 48 rows: 48 not_app" in said
    slots = {"near": Slot(NearPoint()), "never": Slot(Silent(Status.NOT_APPLICABLE))}
    assert run(Mix(slots, WeightedSum("raw", missing="renormalize")), steps=5) == 5


@pytest.mark.parametrize(("status", "value"), [(Status.OK, 0.0), (Status.PARSE_FAIL, float("nan"))])
def test_outputs_that_all_score_the_same_are_borne_for_a_while(status, value):
    """Hard prompts and bad formats do that at first; the option says how long."""
    step, said = ended(Mix({"flat": Silent(status, value)}), steps=50, stop_on_idle_steps=7)
    assert step == 7 and "within every group all outputs scored the same" in said
    assert f"112 {status.label}" in said and f"values from {0 if status is Status.OK else -100} to" in said
    late = run(Mix({"flat": Silent(status, value, wakes=7)}), steps=9, stop_on_idle_steps=7)
    assert late == 9
    assert run(Mix({"flat": Silent(status, value, wakes=20)}), steps=21, stop_on_idle_steps=0) == 21


def test_scores_that_come_in_time_reset_the_count():
    assert run(Mix({"late": Silent(Status.NOT_APPLICABLE, wakes=FEW)}), steps=6) == 6


@pytest.mark.parametrize("limit", [0, 20])
def test_a_short_run_without_any_update_never_ends_as_if_it_had_learned(limit):
    step, said = ended(Mix({"flat": Silent(Status.OK, 0.5)}), steps=2, stop_on_idle_steps=limit)
    assert step == 2 and "nothing was learned in the last 2 steps" in said


@pytest.mark.parametrize(("scaled", "least"), [(False, FEW), (True, 16)])
def test_gradients_that_are_not_finite_end_it_too(scaled, least):
    """Finite losses may have them; float16 is given time to find the scale of its loss."""
    idle = Idle(20, scaled)
    for _ in range(least - 1):
        idle.updated(finite=False)
        idle.finish_step(scored=True)
        idle.stop_if_hopeless(None, last=False)
    idle.updated(finite=False)
    idle.finish_step(scored=True)
    with pytest.raises(ScoreError, match=f"last {least} steps: the gradient was not finite"):
        idle.stop_if_hopeless(None, last=False)
    idle.updated(finite=True)
    idle.finish_step(scored=True)
    idle.stop_if_hopeless(None, last=True)
