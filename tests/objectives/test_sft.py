import dataclasses
from typing import Any

import pytest
import torch

from mmalign.adapters.image.sd3 import SD3
from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.setting import Setting
from mmalign.core.types import Example, Preference, Prompt, Rollout, Status
from mmalign.media.picture_fit import fitted
from mmalign.objectives import objectives
from mmalign.objectives._weights import log_prob_divisors
from mmalign.objectives.sft import SFT
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from tests.objectives.driving import Fixed, accumulate, alone, collect, gradient, learn, outputs, preferences, stream
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, ToyLatent, prompts


class AnySize(ToyLatent):
    """Pictures of any size, each pixel by itself."""

    latent_shape = (3, 4, 4)

    def predict(self, x: torch.Tensor, times: torch.Tensor, condition: Any) -> torch.Tensor:
        return next(self.module.parameters())[0, 0] * x + times[:, None, None, None]


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
    takes = [f for f in dataclasses.fields(kind) if f.init]
    required = {f.name for f in takes if f.default is f.default_factory is dataclasses.MISSING} - {"reward"}
    if required:  # experts: it samples from prompts, which its class says
        assert name == "distill"
        return frozenset({"prompts"})
    given = {"reward": reward} if "reward" in {f.name for f in takes} else {}
    return getattr(kind(**given), "reads", frozenset({"prompts"}))


def shown(count: int, length: int = 1) -> list[Example]:
    rng = stream(length)
    return [Example(Prompt("x" * length), torch.rand(1, 1, 2, generator=rng)) for _ in range(count)]


def loss_of(policy: Any, experience: Any, **more: Any) -> float:
    """The mean of -log p / D over rows, written out."""
    rows = policy.log_prob(experience.rollout, experience.probe).sum(1) / 2
    return -float(rows.detach().mean())


def test_a_dropped_caption_is_the_adapters_unconditional_and_nothing_else_changes() -> None:
    policy: Any = Flow(ToyLatent(), num_inference_steps=5)
    plain = collect(policy, SFT(unit="mean"), shown(40))
    dropping = collect(policy, SFT(unit="mean", caption_dropout=0.4), shown(40))
    assert torch.equal(plain.probe["noise"], dropping.probe["noise"]) and torch.equal(plain.divisor, dropping.divisor)
    dropped = dropping.unconditional.tolist()
    assert 5 < sum(dropped) < 30
    # the toy reads the length of a text modulo 3, and 0 without one
    prompts_there = [Prompt("xxx" if gone else "x") for gone in dropped]
    replaced = dataclasses.replace(plain, rollout=dataclasses.replace(plain.rollout, prompts=prompts_there))
    objective = SFT(unit="mean", caption_dropout=0.4)
    whole = gradient(policy, objective, dropping)
    assert torch.allclose(whole, gradient(policy, objective, replaced), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(whole, gradient(policy, objective, plain), rtol=1e-2)
    assert (gradient(policy, objective, dropping, 7) - whole).norm() <= 1e-6 * whole.norm()


def test_dropped_captions_are_seeded_and_go_on_where_a_stream_was_left() -> None:
    policy: Any = Flow(ToyLatent(), num_inference_steps=5)
    objective, rng = SFT(caption_dropout=0.3), stream(4)
    first, state = objective.collect(policy, shown(50), rng), rng.get_state()
    second = objective.collect(policy, shown(50), rng)
    again = objective.collect(policy, shown(50), torch.Generator().set_state(state))
    assert torch.equal(second.unconditional, again.unconditional)
    assert not torch.equal(first.unconditional, second.unconditional)
    many = objective.collect(policy, shown(5000), rng).unconditional.float().mean().item()
    assert many == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_prior_preservation_adds_the_mean_loss_of_the_starts_outputs(weight: float) -> None:
    policy: Any = Flow(ToyLatent(), num_inference_steps=5)
    objective = SFT(unit="mean", prior_prompts=("xx",), prior_weight=weight)
    objective.prior_rows = shown(10, 2)
    experience = collect(policy, objective, shown(6))
    assert experience.prior.tolist() == [False] * 6 + [True] * 6
    assert all(len(p.text) == 1 + own for p, own in zip(experience.rollout.prompts, experience.prior, strict=True))
    halves = [loss_of(policy, experience[rows]) for rows in (~experience.prior, experience.prior)]
    weighted = dataclasses.replace(experience, weight=objective.weigh(experience.mask, alone))
    loss, metrics = objective.loss(policy, weighted, stream())
    assert loss.item() == pytest.approx(halves[0] + weight * halves[1], rel=1e-5)
    assert [-float(metrics[name]) for name in ("fit/target", "fit/prior")] == pytest.approx(halves, rel=1e-5)
    whole = gradient(policy, objective, experience)
    assert (gradient(policy, objective, experience, 5) - whole).norm() <= 1e-5 * whole.norm()


def test_prior_outputs_come_at_the_size_of_the_batch_and_weigh_as_its_rows() -> None:
    policy: Any = Flow(AnySize(), num_inference_steps=5)
    objective = SFT(unit="mse", prior_prompts=("xx",), prior_weight=0.25)
    start = torch.rand(3, 4, 4, generator=stream())
    objective.prior_rows = [Example(Prompt("xx"), start)]
    given = [Example(Prompt("x"), torch.rand(3, 2, 6, generator=stream(i))) for i in range(3)]
    experience = collect(policy, objective, given)
    assert experience.rollout.output.shape == (6, 3, 2, 6)
    assert torch.equal(experience.rollout.output[3], fitted(start, (2, 6), "cover"))
    placed = experience.rollout.prompts[3].placement
    assert placed is not None and placed.original == (4, 4) and placed.scaled == (6, 6) and placed.corner == (2, 0)
    own = policy.log_prob(experience.rollout, experience.probe).sum(1).detach()
    weighted = dataclasses.replace(experience, weight=objective.weigh(experience.mask, alone))
    loss, _ = objective.loss(policy, weighted, stream())
    error = -2 * own / 36  # the mean over the elements that these pictures have, not the adapter's usual ones
    assert loss.item() == pytest.approx(float(error[:3].mean() + 0.25 * error[3:].mean()), rel=1e-5)
    same = collect(policy, objective, [Example(Prompt("x"), start)])
    assert torch.equal(same.rollout.output[1], start) and same.rollout.prompts[1].placement is None


def test_what_fine_tuning_asks_of_the_run_is_checked() -> None:
    rules = SFT(unit="mse", caption_dropout=0.1, prior_prompts=("a dog",)).check
    assert len(list(rules(Setting("sft", "weighted_sum", None, Tokens, CausalLM)))) == 3
    assert not list(rules(Setting("sft", "weighted_sum", None, Flow, SD3)))
    assert not list(rules(Setting("sft", "weighted_sum")))
    with pytest.raises(ConfigError, match="prior_prompts: hold outputs of the start beside given ones, and online"):
        SFT(NearPoint(), online="best_of_n", prior_prompts=("a dog",))
    with pytest.raises(DataError, match="prior preservation needs outputs of the start"):
        collect(Flow(ToyLatent()), SFT(prior_prompts=("a dog",)), shown(2))


def test_the_held_out_loss_is_that_of_all_captions_at_the_same_noise_each_time() -> None:
    policy: Any = Flow(ToyLatent(), num_inference_steps=5)
    objective = SFT(unit="mse", caption_dropout=0.5, prior_prompts=("xx",), draws=2)
    with torch.no_grad():
        found = objective.held_out_loss(policy, shown(6), stream(3))
        again = objective.held_out_loss(policy, shown(6), stream(3))
        plain = SFT(draws=2).collect(policy, shown(6), stream(3))
    assert found == again == pytest.approx(2 * loss_of(policy, plain), rel=1e-6)
