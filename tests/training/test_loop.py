"""The loop learns, its gradient does not depend on how the work is split, and it stops on a wrong start."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CheckError
from mmalign.core.types import Scores, Status
from mmalign.objectives.grpo import GRPO
from mmalign.training.checks import check_start, tolerance
from mmalign.training.loop import accumulate, train
from tests.toys import NearPoint, prompts
from tests.training.problem import Problem


def test_the_loop_improves_the_reward() -> None:
    problem = Problem(steps=60, prompts_per_step=4)
    before = NearPoint()(problem.policy.generate(prompts(4) * 16, torch.Generator().manual_seed(5))).value.mean()
    train(problem.policy, problem.objective, problem.session)
    after = NearPoint()(problem.policy.generate(prompts(4) * 16, torch.Generator().manual_seed(5))).value.mean()
    assert after > before + 0.5
    steps = [step for step, _ in problem.lines]
    assert steps == list(range(1, 61))
    assert {"grad/norm", "time/collect", "time/update", "lr"} <= set(problem.lines[0][1])


@pytest.mark.parametrize(("rows", "spans"), [(0, 0), (5, 0), (1, 1), (16, 2), (7, 3)])
def test_any_split_gives_the_same_weights(rows: int, spans: int) -> None:
    whole, parts = Problem(steps=1), Problem(steps=1, micro_batch_size=rows, steps_per_pass=spans)
    train(whole.policy, whole.objective, whole.session)
    train(parts.policy, parts.objective, parts.session)
    assert parts.lines[0][1]["grad/norm"] == pytest.approx(whole.lines[0][1]["grad/norm"], rel=1e-5)
    for name, value in whole.weights().items():
        assert torch.allclose(parts.weights()[name], value, atol=1e-5), name


def test_minibatches_update_more_than_once_and_leave_the_start() -> None:
    problem = Problem(steps=1, minibatches=2)
    train(problem.policy, problem.objective, problem.session)
    assert problem.session.update_rule.count == 2


class AllFail:
    """A reward whose rows are all errors: nothing may be learned from them."""

    modalities = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Any) -> Scores:
        rows = len(rollout)
        status = torch.full((rows,), Status.ERROR.value, dtype=torch.int8)
        return Scores(value=torch.full((rows,), torch.nan), status=status)


def test_a_step_without_valid_rows_moves_nothing_not_even_by_momentum() -> None:
    problem = Problem(steps=2)
    train(problem.policy, problem.objective, problem.session)
    trained = problem.weights()
    problem.session.trainer.steps = 4
    train(problem.policy, GRPO(reward=AllFail(), group_size=4), problem.session)
    assert all(torch.equal(value, trained[name]) for name, value in problem.weights().items())
    assert problem.lines[-1][1]["update/skipped"] == 1


def test_a_gradient_that_is_not_finite_is_counted_as_a_skipped_update() -> None:
    problem = Problem()
    before = problem.weights()
    for parameter in problem.adapter.module.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    problem.session.update(trained=True)
    assert problem.session.meter.take()["update/skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in problem.weights().items())


def collected(problem: Problem) -> Any:
    with torch.no_grad():
        return problem.objective.collect(problem.policy, prompts(2), torch.Generator().manual_seed(0))


def test_ratio_one_and_kl_zero_at_the_start() -> None:
    problem = Problem()
    experience = collected(problem)
    check_start(problem.policy, experience, len(experience), fresh=True)
    now = problem.policy.step_dist(experience.rollout)
    assert torch.equal(now.log_prob, experience.old.log_prob)
    assert torch.equal(now.log_prob, experience.ref.log_prob)


def test_a_replay_that_differs_stops_the_run_naming_the_station() -> None:
    problem = Problem()
    experience = collected(problem)
    wrong = replace(experience, old=replace(experience.old, log_prob=experience.old.log_prob + 0.5))
    with pytest.raises(
        CheckError, match=r"ratio: the replayed log-prob differs from the sampler's by 0.5 .*micro-batch"
    ):
        check_start(problem.policy, wrong, len(wrong), fresh=True)
    wrong = replace(experience, ref=replace(experience.ref, log_prob=experience.ref.log_prob - 1))
    with pytest.raises(CheckError, match=r"KL: the reference differs from the policy by 1 "):
        check_start(problem.policy, wrong, len(wrong), fresh=True)
    check_start(problem.policy, wrong, len(wrong), fresh=False)  # a resumed run has left its reference
    assert tolerance(problem.policy) == 1e-3


def test_the_schedule_ends_with_the_run_though_there_are_fewer_rows_than_minibatches() -> None:
    problem = Problem(steps=4, minibatches=64, lr_end=0.0, warmup=0)
    train(problem.policy, problem.objective, problem.session)
    assert problem.session.update_rule.count == 4 * 64


def test_a_launch_does_not_scale_the_gradient() -> None:
    class Dividing:
        """What accelerate does where the launch asked for accumulation."""

        num_processes = 1

        def backward(self, loss: torch.Tensor) -> None:
            (loss / 4).backward()

    plain, launched = Problem(steps=1), Problem(steps=1)
    launched.session.accelerator = Dividing()
    for problem in (plain, launched):
        train(problem.policy, problem.objective, problem.session)
    assert launched.lines[0][1]["grad/norm"] == plain.lines[0][1]["grad/norm"]


class SomeAlike:
    """The first half of the groups of four score alike, so that nothing can be learned from them."""

    modalities = frozenset({"image"})
    range = (-1.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Any) -> Scores:
        value = NearPoint()(rollout).value
        value[: len(value) // 2] = 0.5
        return Scores.of(value)


def replayed(problem: Problem) -> list[int]:
    """Counts the rows of every replay with gradient."""
    rows: list[int] = []
    plain = problem.policy.step_dist

    def watched(rollout: Any, *more: Any) -> Any:
        if torch.is_grad_enabled():
            rows.append(len(rollout))
        return plain(rollout, *more)

    problem.policy.step_dist = watched  # type: ignore[method-assign]
    return rows


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_batch_size": 3},
        {"micro_batch_size": 3, "steps_per_pass": 1},
        {"minibatches": 3, "micro_batch_size": 2},
    ],
)
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_rows_of_weight_zero_cost_nothing_and_change_nothing(options: dict[str, int], beta: float) -> None:
    gradients, counted = [], []
    for dropped in (True, False):
        objective = GRPO(SomeAlike(), group_size=4, beta=beta)
        problem = Problem(objective=objective, **options)
        experience = collected(problem)
        with torch.no_grad():
            for i, parameter in enumerate(problem.adapter.module.parameters()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        seen = replayed(problem)
        for part in experience.minibatches(problem.session.trainer.minibatches, torch.Generator().manual_seed(3)):
            weighted = replace(part, weight=objective.weigh(part.mask, problem.session.mean))
            if not dropped:
                weighted.contributing = lambda whole=weighted: whole  # type: ignore[method-assign]
            accumulate(problem.policy, objective, weighted, problem.session)
        gradients.append(torch.cat([p.grad.flatten() for p in problem.adapter.module.parameters()]))
        counted.append((sum(seen), problem.session.meter.take()))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[1].norm()
    (few, mine), (all_rows, theirs) = counted
    passes = 3 if options.get("steps_per_pass") else 1  # steps that were drawn with noise
    assert all_rows == 8 * passes and few <= (4 + options.get("minibatches", 1) - 1) * passes
    assert mine["rows/dropped"] == theirs["rows/dropped"] == pytest.approx(0.5, abs=0.1 * ("minibatches" in options))


def test_the_reference_is_not_asked_of_rows_that_do_not_train() -> None:
    problem = Problem(objective=GRPO(SomeAlike(), group_size=4, beta=0.1))
    asked: list[int] = []
    plain = problem.policy.step_log_prob
    problem.policy.step_log_prob = lambda r, *more: asked.append(len(r)) or plain(r, *more)  # type: ignore
    experience = collected(problem)
    assert asked == [4] and experience.mask[4:].all() and not experience.mask[:4].any()
    check_start(problem.policy, experience, len(experience), fresh=True)
