"""Sampling and replay, for flows and for diffusion models alike."""

from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import Prediction
from mmalign.core.rng import randn
from mmalign.core.types import Prompt, Rollout, join
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from tests.policies.worlds import CountingLatent, DoubleLatent, generator, gradient, grouped, jolt, slope
from tests.toys import ToyLatent, prompts

SAMPLERS: dict[str, tuple[Any, Prediction, dict[str, Any]]] = {
    "flow_sde": (Flow, "flow", {"sde": "flow_sde"}),
    "cps": (Flow, "flow", {"sde": "cps"}),
    "dance": (Flow, "flow", {"sde": "dance"}),
    "ddim_epsilon": (Ddpm, "epsilon", {"eta": 1.0}),
    "ddim_v": (Ddpm, "v", {"eta": 0.5}),
}
WINDOWS: dict[str, dict[str, Any]] = {
    "all": {},
    "first": {"window": "first", "window_size": 2},
    "random": {"window": "random", "window_size": 3, "window_range": (0.0, 0.7)},
    "progressive": {"window": "progressive", "window_size": 2, "window_every": 1},
    "scattered": {"window": "scattered", "window_size": 3},
    "subset": {"window": "subset", "window_size": 3},
}


def policy(sampler: str = "cps", adapter: Any = None, **options: Any) -> Any:
    cls, prediction, more = SAMPLERS[sampler]
    steps = options.pop("num_inference_steps", 6)
    return cls(adapter or ToyLatent(prediction), num_inference_steps=steps, **more, **options)


@pytest.mark.parametrize(("guidance", "rows", "same"), [(1.0, 5, False), (3.0, 0, True)])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_ratio_is_exactly_one_and_the_kl_zero_before_the_first_update(
    sampler: str, window: str, guidance: float, rows: int, same: bool
) -> None:
    made = policy(sampler, guidance_scale=guidance, rows=rows, same_noise=same, **WINDOWS[window])
    made.sample(grouped(), generator(1))  # the progressive window moves on
    rollout = made.sample(grouped(), generator(2))
    dist = made.step_dist(rollout)
    assert dist.log_prob.requires_grad
    assert torch.equal(dist.log_prob.detach(), rollout.step_logp)
    steps = WINDOWS[window].get("window_size", 5)
    assert rollout.step_logp.shape == rollout.mask.shape == dist.std.shape == (12, steps)
    assert dist.mean.shape == (12, steps, 1, 1, 2)
    assert rollout.mask.all()
    assert (dist.std > 0).all()
    with made.reference():
        start = made.step_dist(rollout)
    policy_steps, reference_steps = (
        torch.distributions.Normal(d.mean, d.std[:, :, None, None, None]) for d in (dist, start)
    )
    assert torch.distributions.kl_divergence(policy_steps, reference_steps).eq(0).all()
    jolt(made.adapter)
    assert not torch.allclose(made.step_log_prob(rollout), rollout.step_logp)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_recorded_steps_are_draws_of_their_own_gaussians(sampler: str) -> None:
    made = policy(sampler, guidance_scale=2.0)
    rollout = made.sample(grouped(8, 64), generator())
    dist = made.step_dist(rollout)
    z = (rollout.trajectory["next"] - dist.mean) / dist.std[:, :, None, None, None]
    assert abs(z.mean().item()) < 0.05
    assert abs(z.std().item() - 1) < 0.05
    wanted = torch.distributions.Normal(dist.mean.double(), dist.std.double()[:, :, None, None, None])
    joint = wanted.log_prob(rollout.trajectory["next"].double()).sum((2, 3, 4))
    torch.testing.assert_close(rollout.step_logp.double(), joint, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", ["all", "random"])
def test_steps_of_flows_tell_the_time_they_cover(window: str) -> None:
    made = policy("flow_sde", **WINDOWS[window])
    rollout = made.sample(grouped(), generator())
    times, step = made.adapter.schedule(6).sigma, rollout.trajectory["step"]
    found = made.step_dist(rollout, slice(1, 3)).dt
    assert torch.equal(found, (times[step] - times[step + 1])[:, 1:3]) and (found > 0).all()
    diffusion = policy("ddim_v")
    assert diffusion.step_dist(diffusion.sample(grouped(), generator())).dt is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_slices_of_time_and_of_rows_put_together_are_the_whole(sampler: str) -> None:
    made = policy(sampler)
    rollout = made.sample(grouped(), generator())
    whole = made.step_dist(rollout)
    for name in ("log_prob", "mean", "std"):
        slices = [getattr(made.step_dist(rollout, slice(t, t + 2)), name) for t in range(0, 5, 2)]
        assert torch.equal(torch.cat(slices, 1), getattr(whole, name))
        chunks = [getattr(made.step_dist(rollout[i : i + 4]), name) for i in range(0, 12, 4)]
        torch.testing.assert_close(torch.cat(chunks), getattr(whole, name))
    with pytest.raises(ValueError, match="selects none of the 5 recorded steps"):
        made.step_dist(rollout, slice(9, 12))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradients_are_those_of_finite_differences(sampler: str) -> None:
    adapter = DoubleLatent(SAMPLERS[sampler][1], width=4)
    made = policy(sampler, adapter, guidance_scale=2.0)
    rollout = made.sample(prompts(2), generator())
    rollout.trajectory = {k: v.double() if v.is_floating_point() else v for k, v in rollout.trajectory.items()}
    torch.manual_seed(0)
    weight = torch.randn(2, 5, dtype=torch.float64)

    def value() -> torch.Tensor:
        return (weight * made.step_log_prob(rollout)).sum()

    torch.testing.assert_close(gradient(adapter, value), slope(adapter, value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("same", [False, True])
def test_micro_batches_change_no_noise(sampler: str, same: bool) -> None:
    window = {"window": "random", "window_size": 2, "window_range": (0.3, 0.9), "same_noise": same}
    made = [policy(sampler, rows=rows, **window).sample(grouped(), generator()) for rows in (0, 1, 5)]
    for other in made[1:]:
        assert torch.equal(made[0].trajectory["step"], other.trajectory["step"])
        torch.testing.assert_close(made[0].trajectory["x0"], other.trajectory["x0"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(made[0].step_logp, other.step_logp, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_shared_prefix_is_run_once_per_group_and_changes_nothing(sampler: str) -> None:
    adapter = CountingLatent(SAMPLERS[sampler][1])
    late = {"window": "first", "window_size": 2, "window_range": (0.5, 1.0)}  # steps 3 and 4 of 6
    made = policy(sampler, adapter, same_noise=True, **late)
    rollout = made.sample(grouped(3, 4), generator())
    assert adapter.forwards == [3] * 3 + [12] * 3
    assert rollout.trajectory["step"].tolist() == [[3, 4]] * 12
    states = rollout.trajectory["x"][:, 0].reshape(3, 4, 2)
    assert states.eq(states[:, :1]).all()  # a group branches where its window starts
    assert (rollout.trajectory["next"][:, 0].reshape(3, 4, 2).std(1) > 0).all()
    # Each group's prefix is the deterministic path of its own prompt from its own noise.
    rule, own = made.step_rule(), grouped(3, 1)
    x, condition = randn((3, 1, 1, 2), generator()), adapter.encode(own)
    with torch.no_grad():
        for k in range(3):
            index = torch.full((3,), k)
            x = rule.plain(x, index, adapter.predict(x, rule.levels.times[index], condition)).next
    torch.testing.assert_close(states[:, 0], x.reshape(3, 2))
    alone = policy(sampler, **late)
    assert not alone.sample(grouped(3, 4), generator()).trajectory["x"][:, 0].reshape(3, 4, 2).std(1).eq(0).any()
    # The prefix is the deterministic sampler itself: without noise, rollouts of a group are one and the same.
    silent = {"noise_level": 0.0} if made.__class__ is Flow else {"eta": 0.0}
    still = type(made)(ToyLatent(SAMPLERS[sampler][1]), num_inference_steps=6, same_noise=True, **silent)
    ends = still.sample(grouped(3, 4), generator()).trajectory["x0"].reshape(3, 4, 2)
    assert ends.eq(ends[:, :1]).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_outside_the_window_follow_the_deterministic_sampler(sampler: str) -> None:
    made = policy(sampler, window="first", window_size=1)
    rollout = made.sample(grouped(), generator())
    rule = made.step_rule()
    x = rollout.trajectory["next"][:, 0]
    condition = made.adapter.encode(rollout.prompts)
    with torch.no_grad():
        for k in range(1, 6):
            index = torch.full((12,), k)
            x = rule.plain(x, index, made.adapter.predict(x, rule.levels.times[index], condition)).next
    torch.testing.assert_close(rollout.trajectory["x0"], x)


def test_without_noise_samples_are_those_of_generate_and_nothing_is_recorded() -> None:
    for made in (Flow(ToyLatent(), noise_level=0.0), Ddpm(ToyLatent("epsilon"), eta=0.0)):
        rollout = made.sample(grouped(), generator(3))
        assert set(rollout.trajectory) == {"x0"}
        assert rollout.step_logp is None and rollout.mask is None
        assert torch.equal(rollout.trajectory["x0"], made.generate(grouped(), generator(3)).trajectory["x0"])
        with pytest.raises(CapabilityError, match=r"no recorded steps.*generate\(\) or observe\(\), or the sampler's"):
            made.step_dist(rollout)


def test_generate_is_repeatable_takes_its_own_steps_and_guidance_and_leaves_the_window_alone() -> None:
    adapter = CountingLatent()
    made = Flow(
        adapter, num_inference_steps=4, eval_steps=7, eval_guidance_scale=2.0, window="progressive", window_size=1
    )
    first, second = made.generate(grouped(), generator(3)), made.generate(grouped(), generator(3))
    assert adapter.forwards == [24] * 14
    assert torch.equal(first.output, second.output)
    assert made.state_dict() == {"calls": 0}
    assert not first.output.requires_grad


def test_the_progressive_window_resumes_where_it_stood() -> None:
    options: dict[str, Any] = {"window": "progressive", "window_size": 2, "window_every": 2}
    through, stopped = policy(**options), policy(**options)
    seen = [through.sample(prompts(1), generator()).trajectory["step"][0].tolist() for _ in range(8)]
    assert seen == [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3], [3, 4], [3, 4]]
    for _ in range(5):
        stopped.sample(prompts(1), generator())
    resumed = policy(**options)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.sample(prompts(1), generator()).trajectory["step"][0].tolist() == seen[5]


def test_rollouts_of_different_windows_can_be_joined_and_replayed() -> None:
    made = policy(window="random", window_size=2, rows=4)
    parts = [made.sample(grouped(1, 4), generator(seed)) for seed in range(6)]
    assert len({tuple(part.trajectory["step"][0].tolist()) for part in parts}) > 1
    whole: Rollout = join(parts)
    assert torch.equal(made.step_log_prob(whole), whole.step_logp)


def test_groups_are_rows_of_equal_prompts_by_first_appearance() -> None:
    picture = torch.zeros(1)
    rows = [Prompt("b"), Prompt("a"), Prompt("b"), Prompt("b", {"image": picture}), Prompt("b", {"image": picture})]
    rows.append(Prompt("b", {"image": picture.clone()}))
    assert policy().sample(rows, generator()).group.tolist() == [0, 1, 0, 2, 2, 3]


def test_outputs_are_in_range_and_trajectories_float32_where_they_should_lie() -> None:
    made = policy(store="cpu")
    rollout = made.sample(grouped(), generator())
    assert rollout.output.min() >= 0
    assert rollout.output.max() <= 1
    assert rollout.trajectory["x0"].min() < 0  # the latents themselves are not clamped
    assert {v.dtype for k, v in rollout.trajectory.items() if k != "step"} == {torch.float32}
    assert rollout.trajectory["step"].dtype == torch.int64
    assert {v.device.type for v in rollout.trajectory.values()} == {"cpu"}
    assert made.event_size == 2


def test_residual_noise_lets_the_last_step_draw_where_it_has_variance() -> None:
    assert policy("flow_sde").sample(prompts(1), generator()).trajectory["step"].tolist() == [[0, 1, 2, 3, 4]]
    noisy = policy("flow_sde", residual_noise=True)
    assert noisy.sample(prompts(1), generator()).trajectory["step"].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert policy("ddim_v").sample(prompts(1), generator()).trajectory["step"].tolist() == [[0, 1, 2, 3, 4]]
    noisy = policy("ddim_v", residual_noise=True)  # its schedule ends at σ > 0, so the last step has a variance
    assert noisy.sample(prompts(1), generator()).trajectory["step"].tolist() == [[0, 1, 2, 3, 4, 5]]
    still = policy("cps", residual_noise=True)  # its last step has std 0: never a part of T
    assert still.sample(prompts(1), generator()).trajectory["step"].tolist() == [[0, 1, 2, 3, 4]]


def test_noise_reaches_only_the_device_of_the_generator_once() -> None:
    """Two equal generators end in equal states, whatever the micro-batch."""
    states = []
    for rows in (0, 3):
        rng = generator(9)
        policy(rows=rows).sample(grouped(), rng)
        states.append(rng.get_state())
    assert torch.equal(*states)
