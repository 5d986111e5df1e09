"""The loop learns, its gradient does not depend on how the work is split, and it stops on a wrong start."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CheckError
from mmalign.core.types import Scores, Status
from mmalign.objectives.dpo import DPO
from mmalign.objectives.grpo import GRPO
from mmalign.objectives.r0 import R0
from mmalign.policies.few_step import FewStep
from mmalign.training.checks import check_start, tolerance
from mmalign.training.loop import accumulate, training_loop
from mmalign.training.update import Update
from tests.toys import NearPoint, prompts
from tests.training.problem import Problem, SomeAlike


def test_the_loop_improves_the_reward() -> None:
    problem = Problem(steps=60, prompts_per_step=4)
    before = NearPoint()(problem.policy.generate(prompts(4) * 16, torch.Generator().manual_seed(5))).value.mean()
    training_loop(problem.policy, problem.objective, problem.session)
    after = NearPoint()(problem.policy.generate(prompts(4) * 16, torch.Generator().manual_seed(5))).value.mean()
    assert after > before + 0.5
    steps = [step for step, _ in problem.lines]
    assert steps == list(range(1, 61))
    assert {"grad/norm", "time/collect", "time/update", "lr"} <= set(problem.lines[0][1])


@pytest.mark.parametrize(("rows", "spans"), [(0, 0), (5, 0), (1, 1), (16, 2), (7, 3)])
def test_any_split_gives_the_same_weights(rows: int, spans: int) -> None:
    whole, parts = Problem(steps=1), Problem(steps=1, micro_batch_size=rows, steps_per_pass=spans)
    training_loop(whole.policy, whole.objective, whole.session)
    training_loop(parts.policy, parts.objective, parts.session)
    assert parts.lines[0][1]["grad/norm"] == pytest.approx(whole.lines[0][1]["grad/norm"], rel=1e-5)
    for name, value in whole.weights().items():
        assert torch.allclose(parts.weights()[name], value, atol=1e-5), name


def test_minibatches_update_more_than_once_and_leave_the_start() -> None:
    problem = Problem(steps=1, minibatches=2)
    training_loop(problem.policy, problem.objective, problem.session)
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
    training_loop(problem.policy, problem.objective, problem.session)
    trained = problem.weights()
    problem.session.trainer.steps = 4
    training_loop(problem.policy, GRPO(reward=AllFail(), group_size=4), problem.session)
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


def test_noise_in_what_is_trained_is_seen_once_it_shows() -> None:
    """As dropout in a LoRA: it draws anew each time it is asked, of weights that are 0 at the start."""
    problem = Problem(lr=0.5)
    added = torch.nn.Parameter(torch.zeros(2))
    problem.session.update_rule = Update([added], problem.session.trainer)
    plain = problem.adapter.predict

    def predict(x: torch.Tensor, times: torch.Tensor, condition: Any) -> torch.Tensor:
        return plain(x, times, condition) + added * torch.rand(len(x), 1, 1, 1).round()

    problem.adapter.predict = predict  # type: ignore[method-assign]
    with pytest.raises(CheckError, match=r"ratio: the replayed log-prob differs .* after the first update: give roll"):
        training_loop(problem.policy, problem.objective, problem.session)
    assert problem.session.step == 1 and added.abs().sum() > 0


class EqualAtFirst(NearPoint):
    """A reward that gives all outputs of its first call one score."""

    calls = 0

    def __call__(self, rollout: Any) -> Scores:
        self.calls += 1
        found = super().__call__(rollout)
        return replace(found, value=torch.zeros_like(found.value)) if self.calls == 1 else found


def test_the_policy_is_seen_to_agree_with_itself_before_and_after_its_first_update() -> None:
    for reward, seen in ((NearPoint(), [True, True, False, False]), (EqualAtFirst(), [True, False, True, False])):
        problem = Problem(steps=4, objective=GRPO(reward=reward, group_size=4))
        training_loop(problem.policy, problem.objective, problem.session)
        assert ["time/check" in line for _, line in problem.lines] == seen


@pytest.mark.parametrize("kind", ["pairs", "requests"])
def test_what_no_ratio_is_taken_of_is_asked_twice(kind: str) -> None:
    problem = Problem()
    if kind == "pairs":
        objective: Any = DPO(reward=NearPoint(), online="best_worst", group_size=4)
        policy: Any = replace(problem.policy, noise_level=0.0)
    else:
        objective, policy = R0(reward=NearPoint()), FewStep(adapter=problem.adapter, num_inference_steps=2)
    with torch.no_grad():
        experience = objective.collect(policy, prompts(2), torch.Generator().manual_seed(0))
    check_start(policy, experience, len(experience), fresh=True)
    check_start(policy, experience, len(experience), fresh=False, moved=True)
    plain = problem.adapter.predict
    problem.adapter.predict = lambda *given: plain(*given) + torch.rand(1)  # type: ignore[method-assign]
    with pytest.raises(CheckError, match=r"asked twice.* after the first update: something in the network draws at"):
        check_start(policy, experience, len(experience), fresh=False, moved=True)


def test_the_schedule_ends_with_the_run_though_there_are_fewer_rows_than_minibatches() -> None:
    problem = Problem(steps=4, minibatches=64, lr_end=0.0, warmup=0)
    training_loop(problem.policy, problem.objective, problem.session)
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
        training_loop(problem.policy, problem.objective, problem.session)
    assert launched.lines[0][1]["grad/norm"] == plain.lines[0][1]["grad/norm"]


def replayed(problem: Problem) -> list[int]:
    """Counts the rows of every replay with gradient."""
    rows: list[int] = []
    policy: Any = problem.policy
    plain = policy.step_dist

    def watched(rollout: Any, *more: Any) -> Any:
        if torch.is_grad_enabled():
            rows.append(len(rollout))
        return plain(rollout, *more)

    policy.step_dist = watched
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
                weighted.contributing = lambda whole=weighted: whole
            accumulate(problem.policy, objective, weighted, problem.session)
        gradients.append(torch.cat([p.grad.flatten() for p in problem.adapter.module.parameters()]))
        counted.append((sum(seen), problem.session.meter.take()))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[1].norm()
    (few, mine), (all_rows, theirs) = counted
    passes = 3 if options.get("steps_per_pass") else 1  # steps that were drawn with noise
    assert all_rows == 8 * passes and few <= (4 + options.get("minibatches", 1) - 1) * passes
    assert mine["rows/dropped"] == theirs["rows/dropped"] == pytest.approx(0.5, abs=0.1 * ("minibatches" in options))


def test_the_reference_is_not_asked_of_rows_that_do_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(objective=GRPO(SomeAlike(), group_size=4, beta=0.1))
    asked: list[int] = []
    plain = problem.policy.step_log_prob

    def noted(rollout: Any, *more: Any) -> Any:
        asked.append(len(rollout))
        return plain(rollout, *more)

    monkeypatch.setattr(problem.policy, "step_log_prob", noted)
    experience = collected(problem)
    assert asked == [4] and experience.mask[4:].all() and not experience.mask[:4].any()
    check_start(problem.policy, experience, len(experience), fresh=True)
