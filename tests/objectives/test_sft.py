import dataclasses
from typing import Any

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Example, Preference, Prompt, Rollout, Status
from mmalign.objectives import objectives
from mmalign.objectives._weights import log_prob_divisors
from mmalign.objectives.sft import SFT
from tests.objectives.driving import Fixed, accumulate, alone, collect, gradient, learn, outputs, preferences, stream
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts


@pytest.mark.parametrize("online", ["off", "best_of_n"])
def test_learns_and_splits(online: Any) -> None:
    batch: Any = preferences(7) if online == "off" else prompts(4)
    objective = SFT(NearPoint(), online=online, group_size=8, draws=2)
    policy = GaussianPolicy(noisy=True, double=True)
    experience = collect(policy, objective, batch)
    whole = gradient(policy, objective, experience)
    assert (gradient(policy, objective, experience, 3) - whole).norm() <= 1e-10 * whole.norm()
    policy, along = GaussianPolicy(), torch.tensor([1.0, -1.0])
    before = (outputs(policy, prompts(3)) - along).square().sum(1).mean()
    learn(policy, objective, batch, steps=25, lr=0.05)
    assert (outputs(policy, prompts(3)) - along).square().sum(1).mean() < 0.7 * before


def test_best_of_n_imitates_the_best_and_skips_what_has_no_score() -> None:
    ok, bad, nan = Status.OK, Status.ERROR, float("nan")
    objective = SFT(Fixed([1.0, 3.0, nan, nan], [ok, ok, bad, bad]), online="best_of_n", group_size=2)
    policy = GaussianPolicy()
    found = collect(policy, objective, prompts(2))
    made = policy.sample([p for p in prompts(2) for _ in range(2)], stream())
    assert torch.equal(found.rollout.output[0], made.output[1]) and found.mask.tolist() == [True, False]
    assert accumulate(policy, objective, found)["rows/skipped"] == 0.5


def test_divisors() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False], [True, False, False, False]])
    rollout = Rollout([Prompt("x")] * 3, ["a"] * 3, torch.arange(3), mask=mask)
    valid = torch.tensor([True, True, False])
    made = {
        per: log_prob_divisors(rollout, True, valid, per, alone).tolist() for per in ("output", "token", "batch_token")
    }
    assert made == {"output": [1, 1, 1], "token": [4, 2, 1], "batch_token": [3, 3, 3]}
    assert log_prob_divisors(rollout, False, valid, "token", alone).tolist() == [1, 1, 1]
    assert log_prob_divisors(rollout, True, ~valid & valid, "batch_token", alone).tolist() == [1, 1, 1]


def test_targets_of_prompts() -> None:
    policy = GaussianPolicy()
    wanted = [Prompt("x", meta={"answer": torch.ones(1, 1, 2)})]
    found = collect(policy, SFT(target="answer"), wanted)
    same = collect(policy, SFT(), [Preference(Prompt("x"), torch.ones(1, 1, 2), torch.zeros(1, 1, 2))])
    assert torch.equal(found.rollout.trajectory["x0"], same.rollout.trajectory["x0"])
    with pytest.raises(DataError, match=r"row 0 of the batch: the prompt has no 'target' to imitate.*columns: answer"):
        collect(policy, SFT(), wanted)
    with pytest.raises(ConfigError, match="best_of_n ranks samples by a reward, and there is none"):
        objectives.build({"name": "sft", "online": "best_of_n"}, "objective")
    with pytest.raises(ConfigError, match=r"draws: must be at least 1 \(got 0\)"):
        objectives.build({"name": "sft", "draws": 0}, "objective")


@pytest.mark.parametrize("per", ["output", "token", "batch_token"])
def test_the_fit_per_token_is_per_token_whatever_the_loss_is_per(per: Any) -> None:
    policy, objective = GaussianPolicy(), SFT(NearPoint(), online="best_of_n", per=per)
    found = collect(policy, objective, prompts(3))
    said = policy.log_prob(found.rollout, {}).sum(1) / found.rollout.mask.sum(1) / policy.event_size
    assert float(accumulate(policy, objective, found)["fit/per_token"]) == pytest.approx(
        float(said.detach().mean()), rel=1e-5
    )


def test_examples_are_imitated_as_the_chosen_ones_of_preferences_are() -> None:
    policy, shown = GaussianPolicy(), torch.ones(1, 1, 2)
    made = collect(policy, SFT(), [Example(Prompt("x"), shown)])
    same = collect(policy, SFT(), [Preference(Prompt("x"), shown, torch.zeros(1, 1, 2))])
    assert torch.equal(made.rollout.trajectory["x0"], same.rollout.trajectory["x0"])
    assert [name for name in objectives.names() if "examples" in _reads(name)] == ["sft"]


def _reads(name: str) -> frozenset[str]:
    kind, reward = objectives.get(name), NearPoint()
    takes = {f.name for f in dataclasses.fields(kind)}
    return getattr(kind(**({"reward": reward} if "reward" in takes else {})), "reads", frozenset({"prompts"}))
