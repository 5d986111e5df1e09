import pytest
import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Preference, Prompt, Status
from mmalign.objectives import objectives
from mmalign.objectives.copg import CoPG
from tests.objectives.driving import Fixed, collect, gradient, learn, moved, outputs, stream
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts


@pytest.mark.parametrize("online", ["neighbours", "all_pairs"])
def test_learns_and_splits(online: str) -> None:
    policy = moved(GaussianPolicy(noisy=True, double=True))
    objective = CoPG(NearPoint(), online=online, beta=0.2, draws=2)  # type: ignore[arg-type]
    pairs = collect(policy, objective, prompts(3))
    whole = gradient(policy, objective, pairs)
    assert (gradient(policy, objective, pairs, 2) - whole).norm() <= 1e-10 * whole.norm()
    policy, batch, goal = GaussianPolicy(), prompts(3), torch.tensor([1.0, -1.0])
    before = (outputs(policy, batch) - goal).square().sum(1).mean()
    learn(policy, objective, batch, steps=25, lr=0.05)
    assert (outputs(policy, batch) - goal).square().sum(1).mean() < 0.6 * before


def test_all_pairs_are_rloo_with_the_kl_in_its_reward() -> None:
    """Σ over pairs of a group against k/(k-1) (R - mean R) ∇log π, R = r - β ρ, by autograd on the log-probs."""
    policy = moved(GaussianPolicy(double=True))
    objective = CoPG(NearPoint(), online="all_pairs", group_size=4, beta=0.3)
    pairs = collect(policy, objective, prompts(2))
    got = gradient(policy, objective, pairs)
    rollout = policy.sample([p for p in prompts(2) for _ in range(4)], stream())
    said = policy.log_prob(rollout, {}).sum(1)
    with policy.reference():
        then = policy.log_prob(rollout, {}).sum(1).detach()
    total = (NearPoint()(rollout).value - 0.3 * (said.detach() - then)).reshape(2, 4)
    advantage = (4 / 3 * (total - total.mean(1, keepdim=True))).flatten()
    surrogate = -(advantage * said).mean()
    want = torch.cat([g.flatten() for g in torch.autograd.grad(surrogate, list(policy.module.parameters()))])
    assert torch.nn.functional.cosine_similarity(got, want, dim=0) > 1 - 1e-9
    assert (got / want)[want.abs() > 1e-9].std() < 1e-6  # one constant factor
    assert (got.norm() / want.norm()).item() == pytest.approx(2 * 0.3, rel=1e-6)


def test_nothing_moves_at_the_optimum_whoever_wrote_the_outputs() -> None:
    """If the scores are β log π/π_ref up to a constant, foreign pairs have no gradient."""
    policy = moved(GaussianPolicy(double=True), 0.2)
    asked = [Prompt("x" * (1 + i % 3)) for i in range(6)]
    foreign = torch.randn(2, 6, 1, 1, 2, generator=stream(2), dtype=torch.float64)
    with torch.no_grad():
        sides = [policy.observe(asked, side) for side in foreign]
        now = [policy.log_prob(side, {}).sum(1) for side in sides]
        with policy.reference():
            score = [0.5 * (n - policy.log_prob(s, {}).sum(1)) + 3 for n, s in zip(now, sides, strict=True)]
    rows = []
    for i, prompt in enumerate(asked):
        meta = {"chosen_score": score[0][i].item(), "rejected_score": score[1][i].item()}
        rows.append(Preference(Prompt(prompt.text, meta=meta), foreign[0, i], foreign[1, i]))
    still, other = CoPG(online="off", beta=0.5), CoPG(online="off", beta=0.6)
    assert gradient(policy, still, collect(policy, still, rows)).norm() < 1e-5
    assert gradient(policy, other, collect(policy, other, rows)).norm() > 1e-2


def test_equal_scores_teach_and_missing_ones_do_not() -> None:
    ok, bad = Status.OK, Status.ERROR
    reward = Fixed([1.0, 1.0, 2.0, float("nan")], [ok, ok, ok, bad])
    pairs = collect(GaussianPolicy(), CoPG(reward, group_size=2), prompts(2))
    assert pairs.mask.tolist() == [True, False] and pairs.gap.tolist() == [0, 0]


def test_what_is_missing_is_said() -> None:
    with pytest.raises(DataError, match=r"row 0 of the batch: copg needs numbers in the columns chosen_score and"):
        collect(
            GaussianPolicy(), CoPG(online="off"), [Preference(Prompt("x"), torch.zeros(1, 1, 2), torch.ones(1, 1, 2))]
        )
    with pytest.raises(DataError, match="copg with online: off reads preferences, got Prompt"):
        collect(GaussianPolicy(), CoPG(online="off"), prompts(1))
    with pytest.raises(ConfigError, match=r"(?s)scores samples by a reward, and there is none.*group_size: 3 does not"):
        objectives.build({"name": "copg", "group_size": 3}, "objective")
    with pytest.raises(ConfigError, match="draws: 3 is odd, and loss_type copg squares"):
        collect(GaussianPolicy(noisy=True), CoPG(NearPoint(), draws=3), prompts(1))


def test_scores_of_text_are_read_and_others_are_named() -> None:
    sides = torch.ones(1, 1, 2), torch.zeros(1, 1, 2)
    told = Preference(Prompt("x", meta={"chosen_score": "1.5", "rejected_score": 1}), *sides)
    assert collect(GaussianPolicy(), CoPG(online="off"), [told]).gap.tolist() == [0.5]
    broken = Preference(Prompt("x", meta={"chosen_score": float("nan"), "rejected_score": 1}), *sides)
    with pytest.raises(DataError, match=r"row 0 of the batch: copg needs numbers in the columns .* found \[nan, 1\]"):
        collect(GaussianPolicy(), CoPG(online="off"), [broken])
