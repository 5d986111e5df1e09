"""The few-step sampler: splits, gradients and where they flow."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.protocols import Prediction
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from tests.policies.worlds import CountingLatent, DoubleLatent, descend, generator, gradient, grouped, slope
from tests.toys import NearPoint, ToyLatent, prompts

KINDS = ["flow", "epsilon", "v"]


def policy(prediction: Prediction = "flow", adapter: Any = None, **options: Any) -> FewStep:
    return FewStep(adapter or ToyLatent(prediction), **options)


def part(draws: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {key: value[rows] for key, value in draws.items()}


def double(draws: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() if value.is_floating_point() else value for key, value in draws.items()}


@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("options", [{}, {"random_step": True}, {"grad_steps": 1, "guidance_scale": 2.0}], ids=str)
def test_any_split_of_the_rows_gives_the_same_outputs(prediction: Prediction, options: dict[str, Any]) -> None:
    made = policy(prediction, **options)
    draws = made.draw(grouped(), generator())
    whole = made.rsample(grouped(), draws)
    for size in (1, 5, 7):
        cut = [slice(i, i + size) for i in range(0, 12, size)]
        split = torch.cat([made.rsample(grouped()[rows], part(draws, rows)).trajectory["x0"] for rows in cut])
        torch.testing.assert_close(split, whole.trajectory["x0"], rtol=1e-4, atol=1e-4)
    assert whole.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert whole.output.requires_grad and whole.trajectory["x0"].requires_grad


@pytest.mark.parametrize(
    ("prediction", "spread", "checkpoint"),
    [
        ("flow", "resample", False),
        ("flow", "posterior", True),
        ("epsilon", "posterior", False),
        ("v", "resample", False),
    ],
)
def test_gradients_are_those_of_finite_differences(prediction: Prediction, spread: Any, checkpoint: bool) -> None:
    adapter = DoubleLatent(prediction, width=4)
    made = policy(prediction, adapter, spread=spread, checkpoint=checkpoint, num_inference_steps=3)
    draws = double(made.draw(prompts(2), generator()))

    def value() -> Tensor:
        return made.rsample(prompts(2), draws).trajectory["x0"].sin().sum()

    torch.testing.assert_close(gradient(adapter, value), slope(adapter, value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", KINDS)
def test_truncated_gradients_flow_through_the_last_steps_only(prediction: Prediction) -> None:
    """With x before the last n steps held fixed, finite differences of the remaining steps agree."""
    adapter = DoubleLatent(prediction, width=4)
    whole = policy(prediction, adapter)
    draws = double(whole.draw(prompts(2), generator()))
    path = states(whole, draws)
    full = gradient(adapter, lambda: ends(whole, draws))
    for n in (1, 2, 3):
        value = partial(ends, policy(prediction, adapter, grad_steps=n), draws)
        tail = partial(last, whole, path[4 - n], draws, 4 - n)
        torch.testing.assert_close(gradient(adapter, value), slope(adapter, tail), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(value(), tail(), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(gradient(adapter, value), full)


def ends(made: FewStep, draws: dict[str, Tensor]) -> Tensor:
    return made.rsample(prompts(2), draws).trajectory["x0"].sin().sum()


def last(made: FewStep, x: Tensor, draws: dict[str, Tensor], first: int) -> Tensor:
    return onward(made, x, draws, first)[-1].sin().sum()


def onward(made: FewStep, x: Tensor, draws: dict[str, Tensor], first: int) -> list[Tensor]:
    """The K-step sampler written again from its formula: x̂0 of each step from `first` on, after x."""
    adapter, kind = made.adapter, made.adapter.prediction
    levels, cleans = adapter.schedule(4), []
    condition = adapter.encode(prompts(len(x)))
    for k in range(first, 4):
        a, s, time = levels.alpha[k].double(), levels.sigma[k].double(), levels.times[k].repeat(len(x))
        output = adapter.predict(x, time, condition)
        if kind == "flow":
            clean, epsilon = x - s * output, x + a * output
        elif kind == "epsilon":
            clean, epsilon = (x - s * output) / a, output
        else:
            clean, epsilon = a * x - s * output, a * output + s * x
        cleans.append(clean)
        if k < 3:
            eta = draws["eta"][:, k].view(-1, 1, 1, 1)
            noise = (1 - eta**2).sqrt() * epsilon + eta * draws["renoise"][:, k]
            x = levels.alpha[k + 1].double() * clean + levels.sigma[k + 1].double() * noise
            cleans.append(x)
    return cleans


def states(made: FewStep, draws: dict[str, Tensor]) -> list[Tensor]:
    """x at every step, without gradient."""
    with torch.no_grad():
        return [draws["noise"], *onward(made, draws["noise"], draws, 0)[1::2]]


@pytest.mark.parametrize("prediction", KINDS)
def test_r0_plus_ends_at_a_random_step_and_its_gradient_goes_through_that_step_alone(prediction: Prediction) -> None:
    adapter = DoubleLatent(prediction, width=4)
    made = policy(prediction, adapter, random_step=True)
    draws = double(made.draw(prompts(4), generator(2)))
    draws["step"] = torch.tensor([3, 0, 2, 1])
    path = states(made, draws)
    held = torch.stack([path[j][row] for row, j in enumerate(draws["step"].tolist())])
    levels = adapter.schedule(4)[draws["step"]]

    def one_step() -> Tensor:
        alpha, sigma = (v.double().view(-1, 1, 1, 1) for v in (levels.alpha, levels.sigma))
        output = adapter.predict(held, levels.times, adapter.encode(prompts(4)))
        clean = {
            "flow": held - sigma * output,
            "epsilon": (held - sigma * output) / alpha,
            "v": alpha * held - sigma * output,
        }[prediction]
        return clean.sin().sum()

    def value() -> Tensor:
        return made.rsample(prompts(4), draws).trajectory["x0"].sin().sum()

    torch.testing.assert_close(value(), one_step())
    torch.testing.assert_close(gradient(adapter, value), slope(adapter, one_step), rtol=1e-5, atol=1e-5)


def test_r0_plus_asks_the_network_no_more_than_it_must() -> None:
    adapter = CountingLatent()
    made = policy(adapter=adapter, random_step=True)
    draws = made.draw(prompts(4), generator())
    draws["step"] = torch.tensor([2, 0, 2, 1])
    made.rsample(prompts(4), draws)
    assert adapter.forwards == [3, 2, 4]  # steps 0 and 1 for the rows that go on, then the one with gradient


def test_draws_cover_their_ranges_and_every_step() -> None:
    draws = policy(eta=(0.2, 0.6), guide_levels=(0.1, 0.4)).draw(grouped(40, 50), generator())
    assert {key: len(value) for key, value in draws.items()} == dict.fromkeys(draws, 2000)
    assert 0.2 <= draws["eta"].min() < 0.21 and 0.59 < draws["eta"].max() <= 0.6
    assert 0.1 <= draws["guide_level"].min() < 0.11 and 0.39 < draws["guide_level"].max() <= 0.4
    counts = torch.bincount(draws["step"], minlength=4)
    assert len(counts) == 4
    assert (counts - 500).abs().max() < 100
    assert policy(eta=0.3).draw(prompts(3), generator())["eta"].eq(0.3).all()


@pytest.mark.parametrize("prediction", KINDS)
def test_sample_follows_its_draws_and_generate_is_the_deterministic_sampler(prediction: Prediction) -> None:
    made = policy(prediction, rows=5)
    sampled = made.sample(grouped(), generator(4))
    draws = made.draw(grouped(), generator(4))
    torch.testing.assert_close(
        sampled.trajectory["x0"], made.rsample(grouped(), draws).trajectory["x0"].detach(), rtol=1e-4, atol=1e-4
    )
    assert not sampled.output.requires_grad
    assert sampled.output.min() >= 0 and sampled.output.max() <= 1
    generated = made.generate(grouped(), generator(4))
    still = policy(prediction, eta=0.0)
    draws = still.draw(grouped(), generator(4))
    torch.testing.assert_close(
        generated.trajectory["x0"], still.rsample(grouped(), draws).trajectory["x0"].detach(), rtol=1e-4, atol=1e-4
    )


def test_generate_of_a_flow_is_the_ode_of_policy_flow() -> None:
    adapter = ToyLatent()
    few = policy(adapter=adapter, eval_steps=6).generate(grouped(), generator(4))
    ode = Flow(adapter, num_inference_steps=6).generate(grouped(), generator(4))
    torch.testing.assert_close(few.trajectory["x0"], ode.trajectory["x0"], rtol=1e-4, atol=1e-5)


def test_an_r0_plus_policy_samples_by_the_whole_path() -> None:
    adapter = ToyLatent()
    plus, plain = (policy(adapter=adapter, random_step=on).sample(grouped(), generator(4)) for on in (True, False))
    assert torch.equal(plus.output, plain.output)


@pytest.mark.parametrize(
    ("saturation", "in_range", "alive"),
    [("straight_through", True, True), ("clamp", True, False), ("off", False, True)],
)
def test_saturated_pixels_keep_their_gradient_unless_clamped(saturation: Any, in_range: bool, alive: bool) -> None:
    adapter = ToyLatent()
    last: Any = adapter.network[2]
    with torch.no_grad():
        last.weight.mul_(0)
        last.bias.copy_(torch.tensor([5.0, -5.0]))  # every output is far outside [0, 1]
    made = policy(adapter=adapter, saturation=saturation, num_inference_steps=1)
    output = made.rsample(prompts(4), {**made.draw(prompts(4), generator()), "noise": torch.zeros(4, 1, 1, 2)}).output
    assert bool(((output >= 0) & (output <= 1)).all()) == in_range
    grad = torch.autograd.grad(output.sum(), last.bias)[0]
    assert bool(grad.abs().sum() > 0) == alive


@pytest.mark.parametrize("prediction", KINDS)
def test_the_guidance_direction_is_the_references_clean_difference(prediction: Prediction) -> None:
    adapter = ToyLatent(prediction)
    made = policy(prediction, adapter)
    asked = prompts(4)
    draws = made.draw(asked, generator())
    x0 = torch.randn(4, 1, 1, 2, requires_grad=True)
    before = made.guidance_direction(x0, asked, draws)
    with torch.no_grad():
        for parameter in adapter.module.parameters():
            parameter.mul_(2)
    direction = made.guidance_direction(x0, asked, draws)
    assert torch.equal(direction, before)  # it asks the reference, not the trained weights
    assert not direction.requires_grad
    with made.reference(), torch.no_grad():
        level = adapter.level(draws["guide_level"])
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
        x = alpha * x0 + sigma * draws["guide_noise"]
        gap = adapter.predict(x, level.times, adapter.encode(asked)) - adapter.predict(
            x, level.times, adapter.unconditional(4)
        )
    wanted = {"flow": -sigma * gap, "epsilon": -sigma / alpha * gap, "v": -sigma * gap}[prediction]
    torch.testing.assert_close(direction, wanted, rtol=1e-3, atol=1e-5)
    assert direction[2].eq(0).all()  # a prompt that encodes like the empty one is guided nowhere


@pytest.mark.parametrize("prediction", KINDS)
def test_a_scaled_guidance_leads_to_what_the_guided_reference_would_make(prediction: Prediction) -> None:
    adapter, asked, x0 = ToyLatent(prediction), prompts(4), torch.randn(4, 1, 1, 2)
    made = policy(prediction, adapter, guide_scale=3.0)
    draws = made.draw(asked, generator())
    level = adapter.level(draws["guide_level"])
    alpha, sigma = (v.view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
    x = alpha * x0 + sigma * draws["guide_noise"]
    with torch.no_grad():
        prompted, plain = (
            adapter.predict(x, level.times, c) for c in (adapter.encode(asked), adapter.unconditional(4))
        )
    mixed = plain + 3.0 * (prompted - plain)
    clean = {"flow": x - sigma * mixed, "epsilon": (x - sigma * mixed) / alpha, "v": alpha * x - sigma * mixed}
    torch.testing.assert_close(made.guidance_direction(x0, asked, draws), clean[prediction] - x0, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"random_step": True}, {"grad_steps": 1}], ids=str)
def test_following_the_rewards_gradient_raises_it(options: dict[str, Any]) -> None:
    adapter, reward = ToyLatent(), NearPoint()
    made = policy(adapter=adapter, saturation="off", **options)
    before = made.generate(grouped(), generator(9)).trajectory["x0"]
    rng = generator()

    def loss() -> Tensor:
        return -reward(made.rsample(grouped(), made.draw(grouped(), rng))).value.mean()

    descend(adapter, loss, steps=60, rate=0.15)
    after = made.generate(grouped(), generator(9)).trajectory["x0"]
    far = [(x.flatten(1) - reward.target).square().sum(1).mean().item() for x in (before, after)]
    assert far[1] < 0.25 * far[0]
