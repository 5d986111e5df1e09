from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError, ScoreError
from mmalign.core.types import Rollout, Scores, Status, StepDist
from mmalign.objectives import objectives
from mmalign.objectives.grpo import GRPO
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn, moved, outputs
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "steps": {"weighting": "per_step", "std": "none", "baseline": "leave_one_out"},
    "constant": {"weighting": "constant", "horizon": 3, "std": "global"},
    "mean unit": {"clip": 0.1, "clip_unit": "mean", "clip_high": 0.2},
    "guard": {"guard": True, "beta": 0.01, "divergence": "gaussian"},
    "k2": {"beta": 0.01, "divergence": "k2", "clip": 1.0},
    "k3": {"beta": 0.01, "divergence": "k3", "replay": True},
}


@pytest.mark.parametrize("variant", ["default", "steps", "mean unit", "guard"])
def test_learns(variant: str) -> None:
    policy, batch = GaussianPolicy(), prompts(3)
    goal = torch.tensor([1.0, -1.0])
    before = (outputs(policy, batch) - goal).square().sum(1).mean()
    learn(policy, GRPO(NearPoint(), group_size=8, **VARIANTS[variant]), batch, steps=20, lr=0.1, updates=2)
    after = (outputs(policy, batch) - goal).square().sum(1).mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_gradient_is_the_same_for_any_split(options: dict[str, Any], double: bool) -> None:
    policy = GaussianPolicy(double=double)
    objective = GRPO(NearPoint(), group_size=5, **options)
    experience = collect(policy, objective, prompts(3))
    moved(policy)
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 1e-3
    tolerance = 1e-10 if double else 1e-5
    for rows, spans in ((1, 1), (4, 2), (7, 99), (99, 1)):
        part = gradient(policy, objective, experience, rows, spans)
        assert (part - whole).norm() <= tolerance * whole.norm()
    shuffled = experience[torch.randperm(len(experience), generator=torch.Generator().manual_seed(1))]
    assert (gradient(policy, objective, shuffled, 4) - whole).norm() <= tolerance * whole.norm()


def test_minibatches_share_the_rows() -> None:
    """Every minibatch is weighed by itself, and its split changes nothing."""
    policy, objective = GaussianPolicy(double=True), GRPO(NearPoint(), group_size=4)
    experience = collect(policy, objective, prompts(3))
    for minibatch in experience.minibatches(3, torch.Generator().manual_seed(0)):
        assert len(minibatch) == 4
        whole = gradient(policy, objective, minibatch)
        assert torch.allclose(gradient(policy, objective, minibatch, 1, 1), whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_ratio_is_one_and_kl_zero_before_the_first_update(options: dict[str, Any]) -> None:
    policy, objective = GaussianPolicy(), GRPO(NearPoint(), group_size=4, **options)
    metrics = accumulate(policy, objective, collect(policy, objective, prompts(3)))
    assert metrics["ratio/mean"] == 1 and metrics["kl/old"] == 0 and metrics.get("ratio/clipped", 0) == 0
    assert metrics.get("kl/reference", 0) == 0


def test_first_gradient_is_the_policy_gradient() -> None:
    """Independent: -Σ_rows 1/(B·|o|) Σ_t A ∇log π, by autograd on the log-probs themselves."""
    policy, objective = GaussianPolicy(double=True), GRPO(NearPoint(), group_size=4, std_floor=0.0)
    experience = collect(policy, objective, prompts(3))
    got = gradient(policy, objective, experience)
    reward = NearPoint()(experience.rollout).value.reshape(3, 4)
    advantage = ((reward - reward.mean(1, keepdim=True)) / reward.std(1, correction=0, keepdim=True)).reshape(-1)
    logp = policy.step_log_prob(experience.rollout)
    mask = policy.counts(experience.rollout.prompts)
    loss = -torch.stack([(advantage[i] * logp[i][mask[i]]).mean() for i in range(12)]).mean()
    want = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.module.parameters()))])
    assert torch.allclose(got, want, rtol=1e-6)


def test_a_trust_region_beyond_the_clip_stops_the_gradient() -> None:
    policy, objective = GaussianPolicy(steps=1), GRPO(Fixed([1.0, 0.0]), group_size=2, clip=1e-4)
    experience = collect(policy, objective, prompts(1))
    with torch.no_grad():
        logp = policy.step_log_prob(experience.rollout)[:, 0]
    experience.old = StepDist(log_prob=logp[:, None] - torch.tensor([[0.1], [-0.1]]))
    assert gradient(policy, objective, experience).abs().max() == 0
    assert accumulate(policy, objective, experience)["ratio/clipped"] == 1


def subset(experience: Any, rows: list[int]) -> Any:
    return experience[torch.tensor(rows)]


def test_equal_groups_are_dropped_and_counted() -> None:
    policy = GaussianPolicy(double=True)
    objective = GRPO(Fixed([0.5, 0.5, 0.5, 0.0, 1.0, 0.3]), group_size=3, beta=0.1)
    experience = collect(policy, objective, prompts(2))
    moved(policy)
    live = gradient(policy, objective, subset(experience, [3, 4, 5]))
    assert torch.allclose(gradient(policy, objective, experience), live, rtol=1e-10)
    assert accumulate(policy, objective, experience)["rows/dropped"] == 0.5
    nothing = collect(policy, replace(objective, reward=Fixed([1.0] * 6)), prompts(2))
    assert gradient(policy, objective, nothing).abs().max() == 0


@pytest.mark.parametrize("status", [Status.ERROR, Status.TIMEOUT, Status.NOT_APPLICABLE])
def test_invalid_rows_change_nothing(status: Status) -> None:
    ok = Status.OK
    policy = GaussianPolicy(double=True)
    objective = GRPO(
        Fixed([0.1, float("nan"), 0.9, 0.0, 1.0, float("nan")], [ok, status, ok, ok, ok, status]), group_size=3
    )
    experience = collect(policy, objective, prompts(2))
    moved(policy)
    got = gradient(policy, objective, experience)
    assert got.isfinite().all() and got.norm() > 0
    experience.rollout.trajectory["y"][[1, 5]] += 100  # whatever these rows contain
    assert torch.equal(gradient(policy, objective, experience), got)
    assert torch.allclose(gradient(policy, objective, subset(experience, [0, 2, 3, 4])), got, rtol=1e-10)
    assert accumulate(policy, objective, experience)["rows/invalid"] == pytest.approx(1 / 3)


def test_parse_failures_count_at_the_floor() -> None:
    ok, failed = Status.OK, Status.PARSE_FAIL
    objective = GRPO(Fixed([1.0, -1.0], [ok, failed]), group_size=2)
    experience = collect(GaussianPolicy(), objective, prompts(1))
    assert experience.mask.any(1).all()
    assert experience.advantage[:, 0].tolist() == pytest.approx([1, -1], abs=1e-3)


def test_one_valid_row_is_no_group() -> None:
    objective = GRPO(Fixed([1.0, float("nan")], [Status.OK, Status.ERROR]), group_size=2)
    assert not collect(GaussianPolicy(), objective, prompts(1)).mask.any()


def test_step_credit_trains_only_the_steps_it_tells_apart() -> None:
    credit = torch.zeros(8, 3)
    credit[:, 1] = torch.arange(8.0) - 3.5
    objective = GRPO(Fixed([0.0] * 8, per_step=credit), group_size=8, weighting="per_step")
    policy = GaussianPolicy(double=True)
    experience = collect(policy, objective, prompts(2)[1:])  # a prompt of three steps
    assert experience.advantage.shape == (8, 3)
    gradient(policy, objective, experience)
    by_step = policy.module.mean.grad.norm(dim=1)
    assert by_step[1] > 0.01 and by_step[[0, 2]].max() < 1e-12


def test_the_kl_holds_the_policy_back() -> None:
    far = {}
    for beta in (0.0, 1.0):
        policy = GaussianPolicy()
        objective = GRPO(NearPoint((3.0, 3.0)), group_size=8, beta=beta, divergence="gaussian")
        learn(policy, objective, prompts(3), steps=20, lr=0.1)
        far[beta] = sum(float((p.detach() - policy.start[n]).norm()) for n, p in policy.module.named_parameters())
    assert far[1.0] < 0.6 * far[0.0]


def test_guard_keeps_the_old_moments_and_the_plain_form_does_not() -> None:
    policy = GaussianPolicy()
    assert collect(policy, GRPO(NearPoint(), guard=True), prompts(2)).old.mean.shape == (16, 3, 2)
    assert collect(policy, GRPO(NearPoint(), replay=True), prompts(2)).old.mean is None
    assert collect(policy, GRPO(NearPoint(), beta=1.0), prompts(2)).ref.mean is None


def test_guard_weighs_a_step_by_the_inverse_of_the_time_it_covers() -> None:
    dt = torch.tensor([0.5, 0.25, 0.125])

    class Timed(GaussianPolicy):
        def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
            found = super().step_dist(rollout, steps)
            return replace(found, dt=dt[steps].to(found.log_prob).expand_as(found.log_prob))

    def slopes(policy: GaussianPolicy, beta: float) -> Tensor:
        objective = GRPO(NearPoint(), guard=True, beta=beta, divergence="gaussian", clip=10.0)
        experience = collect(policy, objective, prompts(2))
        moved(policy)
        accumulate(policy, objective, experience)
        return policy.module.mean.grad

    plain, timed = slopes(GaussianPolicy(), 0.0), slopes(Timed(), 0.0)
    torch.testing.assert_close(timed, plain / dt[:, None])
    assert plain.abs().min() > 1e-4
    held = slopes(GaussianPolicy(), 0.5) - plain
    torch.testing.assert_close(slopes(Timed(), 0.5) - timed, held, rtol=1e-3, atol=1e-5)  # the KL is left as it is


def test_replay_ignores_what_the_sampler_said() -> None:
    class Wrong(GaussianPolicy):
        def sample(self, batch: Any, rng: torch.Generator) -> Rollout:
            rollout = super().sample(batch, rng)
            rollout.step_logp = rollout.step_logp + 1
            return rollout

    policy = Wrong()
    trusting = collect(policy, GRPO(NearPoint()), prompts(2))
    checking = collect(policy, GRPO(NearPoint(), replay=True, reference_rows=3), prompts(2))
    now = policy.step_log_prob(checking.rollout)
    assert torch.allclose(checking.old.log_prob, now, atol=1e-6)
    assert torch.allclose(trusting.old.log_prob, now + 1, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, r"objective.group_size: 1 is out of range; a group needs at least 2 outputs"),
        (
            {"clip": -1.0, "beta": -1.0},
            r"(?s)objective.clip: must be above 0 \(got -1.0\)\nobjective.beta: must be at least 0",
        ),
        ({"clip": 5.0, "clip_unit": "mean"}, r"clip: 5.0 is no mean-space value.*clip_unit: nats"),
        ({"clip_unit": "nat"}, r"objective.clip_unit: must be 'nats' or 'mean' \(got 'nat'\)"),
        ({"baseline": "greedy"}, r"std: group is a spread around the group's mean, and baseline: greedy has none"),
        ({"surrogate": "vespo"}, r"surrogate: vespo weighs whole outputs; set ratio: joint"),
        ({"guard": True, "ratio": "sequence"}, r"guard: is a form of the step's own log-ratio"),
        ({"ratio_cap": 0.5, "keep_groups": 0}, r"objective.keep_groups: must be at least 1 \(got 0\)"),
        ({"ratio_cap": 0.5}, r"ratio_cap: 0.5 is out of range; above 1"),
        ({"ratio_cap": 1.1}, r"ratio_cap: 1.1 bounds the ratio of surrogate clip, above 1 \+ clip_high \(1.2\)"),
        ({"ratio_cap": 3.0, "surrogate": "sapo"}, r"ratio_cap: 3.0 bounds the ratio of surrogate clip"),
        ({"horizon": 64}, r"horizon: 64 is the length that weighting: constant divides by"),
        (
            {"advantage_clip": -1.0, "std_floor": -1.0},
            r"(?s)std_floor: must be.*advantage_clip: must be above 0 or must be 'auto'",
        ),
        ({"group_siez": 4}, r"objective.group_siez: unknown option. Did you mean 'group_size'\?"),
    ],
)
def test_faulty_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objectives.build({"name": "grpo", **options}, "objective", reward=NearPoint())


def test_more_groups_than_are_sampled_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match=r"keep_groups: 3 groups of the 2 prompts that a process samples"):
        collect(GaussianPolicy(), GRPO(NearPoint(), keep_groups=3), prompts(2))


@pytest.mark.parametrize("options", [{}, {"guard": True}, {"ratio": "joint"}, {"ratio": "sequence"}])
def test_the_kl_from_the_old_policy_is_of_single_steps_whatever_the_ratio(options: dict[str, Any]) -> None:
    policy, objective = GaussianPolicy(), GRPO(NearPoint(), group_size=4, **options)
    experience = collect(policy, objective, prompts(2))
    moved(policy)
    gone = experience.old.log_prob - policy.step_log_prob(experience.rollout).detach()
    metrics = accumulate(policy, objective, experience)
    assert float(metrics["kl/old"]) == pytest.approx(float(gone[experience.mask].mean()), rel=1e-5)


def test_only_surrogates_that_clip_say_how_often() -> None:
    policy = GaussianPolicy()
    for surrogate, says in {"clip": True, "cispo": True, "sapo": False, "score": False}.items():
        objective = GRPO(NearPoint(), group_size=4, surrogate=surrogate)  # type: ignore[arg-type]
        assert ("ratio/clipped" in accumulate(policy, objective, collect(policy, objective, prompts(2)))) == says


def test_a_value_that_is_not_finite_needs_a_status() -> None:
    with pytest.raises(ScoreError, match=r"reward Fixed scored 1 of 2 rows as usable.*not finite \(row 1: nan\)"):
        collect(GaussianPolicy(), GRPO(Fixed([1.0, float("nan")]), group_size=2), prompts(1))
    with pytest.raises(ScoreError, match=r"reward Fixed returned 3 scores for 2 rows"):
        collect(GaussianPolicy(), GRPO(Fixed([1.0, 2.0, 3.0]), group_size=2), prompts(1))


def test_policies_without_moments_or_steps_are_told() -> None:
    class Bare(GaussianPolicy):
        def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
            return StepDist(log_prob=super().step_dist(rollout, steps).log_prob)

    with pytest.raises(CapabilityError, match="guard needs steps with a mean"):
        collect(Bare(), GRPO(NearPoint(), guard=True), prompts(1))
    objective = GRPO(NearPoint(), beta=1.0, divergence="gaussian")
    with pytest.raises(CapabilityError, match="divergence 'gaussian' needs the mean"):
        gradient(Bare(), objective, collect(Bare(), objective, prompts(1)))
    with pytest.raises(CapabilityError, match="the policy recorded none"):
        collect(GaussianPolicy(steps=0), GRPO(lambda r: Scores.of(torch.zeros(8))), prompts(1)[:0])
