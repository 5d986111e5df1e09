from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.objectives import objectives
from mmalign.objectives._reward_gradients import drop_outward, initial_weights, l2_to_initial, output_gradient
from mmalign.objectives.r0 import R0
from mmalign.rewards import Mix
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn, moved, outputs
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts


@dataclass
class Axis:
    """-scale (x[axis] - 1)²."""

    axis: int
    scale: float
    modalities = frozenset({"image"})
    range = (-1e9, 0.0)
    differentiable = True

    def __call__(self, rollout: Rollout) -> Scores:
        return Scores.of(-self.scale * (rollout.output.flatten(1)[:, self.axis] - 1).square())


class Members:
    differentiable = True

    def __init__(self, **members: tuple[Any, float]) -> None:
        self.members = members


class Point:
    """A generator without noise: its output is its two weights."""

    modality = "image"

    def __init__(self) -> None:
        self.module = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.float64))])
        self.start = torch.zeros(2, dtype=torch.float64)

    def reference(self) -> Any:
        return GaussianPolicy.reference(self)  # type: ignore[arg-type]

    def sample(self, batch: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        return self.rsample(batch, {})

    generate = sample

    def draw(self, batch: Sequence[Prompt], rng: torch.Generator) -> dict[str, Tensor]:
        return {}

    def rsample(self, batch: Sequence[Prompt], draws: dict[str, Tensor]) -> Rollout:
        x0 = self.module[0].expand(len(batch), 2)
        return Rollout(list(batch), x0.reshape(-1, 1, 1, 2), torch.arange(len(batch)), trajectory={"x0": x0})


def ascend(normalize: bool, pull: float, lr: float, steps: int) -> Tensor:
    """Plain gradient descent on two quadratics of scales 1 and 100, from the origin."""
    policy = Point()
    policy.start = {k: v.clone() for k, v in policy.module.state_dict().items()}  # type: ignore[assignment]
    reward = Members(small=(Axis(0, 1.0), 1.0), large=(Axis(1, 100.0), 1.0))
    objective = R0(reward, normalize=normalize, weight_decay_to_start=pull)
    experience = collect(policy, objective, prompts(1))
    for _ in range(steps):
        step = gradient(policy, objective, experience)
        with torch.no_grad():
            policy.module[0] -= lr * step
    return policy.module[0].detach()


def test_two_quadratics_of_scale_1_to_100() -> None:
    """Raw: the large reward takes all. Normalised, at the same distance from the start: both get the same share.

    Closed forms: raw, coordinate i rests where 2 s_i (1 - x_i) = 2 λ x_i; normalised, where 1 = 2 λ x_i.
    """
    raw = ascend(normalize=False, pull=2.0, lr=0.008, steps=120)
    assert raw.tolist() == pytest.approx([1 / 3, 100 / 102], abs=0.02)
    balanced = ascend(normalize=True, pull=0.5 / (raw.norm().item() / 2**0.5), lr=0.05, steps=100)
    assert balanced.norm().item() == pytest.approx(raw.norm().item(), abs=0.03)
    assert balanced.tolist() == pytest.approx([0.73, 0.73], abs=0.02)
    assert min(balanced) > 2 * min(raw)
    assert ascend(normalize=True, pull=2.0, lr=0.05, steps=40).tolist() == pytest.approx([0.25, 0.25], abs=0.01)


def test_learns_and_the_pull_holds_back() -> None:
    far, goal = {}, torch.tensor([1.0, -1.0])
    for pull in (0.0, 1.0):
        policy, batch = GaussianPolicy(), prompts(3)
        before = (outputs(policy, batch) - goal).square().sum(1).mean()
        learn(policy, R0(NearPoint(), samples_per_prompt=4, weight_decay_to_start=pull), batch, steps=20, lr=0.1)
        after = (outputs(policy, batch) - goal).square().sum(1).mean()
        far[pull] = (before - after) / before
    assert far[0.0] > 0.4 and 0 < far[1.0] < 0.8 * far[0.0]


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"guidance_weight": 0.5, "weight_decay_to_start": 0.3}])
def test_gradient_is_the_same_for_any_split(options: dict[str, Any], double: bool) -> None:
    policy = moved(GaussianPolicy(double=double))
    reward = Members(near=(NearPoint(), 1.0), axis=(Axis(0, 100.0), 0.5))
    objective = R0(reward, samples_per_prompt=3, **options)
    experience = collect(policy, objective, prompts(3))
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 1e-3
    for rows in (1, 2, 5):
        difference = gradient(policy, objective, experience, rows) - whole
        assert difference.norm() <= (1e-10 if double else 1e-5) * whole.norm()


def test_raw_gradient_is_backpropagation() -> None:
    policy = GaussianPolicy(double=True)
    objective = R0(Members(near=(NearPoint(), 2.0), axis=(Axis(1, 3.0), 0.5)), normalize=False)
    experience = collect(policy, objective, prompts(4))
    got = gradient(policy, objective, experience)
    policy.module.zero_grad(set_to_none=True)
    rollout = policy.rsample(experience.prompts, experience.draws)
    (-(2 * NearPoint()(rollout).value + 0.5 * Axis(1, 3.0)(rollout).value).mean()).backward()
    want = torch.cat([p.grad.flatten() for p in policy.module.parameters()])
    assert torch.allclose(got, want, rtol=1e-10)


def test_normalised_gradients_are_per_sample_and_scale_free() -> None:
    policy = GaussianPolicy(double=True)
    got = []
    for scale in (1.0, 1e4):
        objective = R0(Members(near=(NearPoint(), 1.0), axis=(Axis(0, scale), 1.0)))
        got.append(gradient(policy, objective, collect(policy, objective, prompts(4))))
    assert torch.allclose(got[0], got[1], rtol=1e-6)


def test_the_pull_is_added_once_with_its_exact_gradient() -> None:
    policy = moved(GaussianPolicy(double=True))
    plain, pulled = R0(NearPoint()), R0(NearPoint(), weight_decay_to_start=0.7)
    experience = collect(policy, plain, prompts(4))
    difference = gradient(policy, pulled, experience, 1) - gradient(policy, plain, experience, 3)
    live = torch.cat([p.detach().flatten() for p in policy.module.parameters()])
    start = torch.cat([policy.start[n].flatten() for n, _ in policy.module.named_parameters()])
    assert torch.allclose(difference, 2 * 0.7 * (live - start), rtol=1e-9)


def test_the_start_is_the_reference_even_when_collected_later() -> None:
    """A resumed run begins with moved weights; the pull still goes to where training began."""
    policy = moved(GaussianPolicy(double=True))
    start = initial_weights(policy)
    assert all(torch.equal(start[n], policy.start[n]) for n in start)
    assert l2_to_initial(policy.module, start) > 0


def test_lora_is_pulled_by_the_product_of_its_factors() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    module = nn.Sequential(nn.Linear(5, 4), nn.SiLU(), nn.Conv2d(3, 6, 3))
    module = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0", "2"]), module)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=rng))
    want = sum(
        (layer.lora_B["default"].weight.flatten(1) @ layer.lora_A["default"].weight.flatten(1)).square().sum().item()
        for layer in (module[0], module[2])
    )
    assert l2_to_initial(module, {}).item() == pytest.approx(want, rel=1e-5)


def test_metrics_are_the_papers_diagnostics() -> None:
    policy = GaussianPolicy()
    objective = R0(Members(a=(Axis(0, 1.0), 1.0), b=(Axis(0, 100.0), 1.0), c=(Axis(1, 1.0), 1.0)), guidance_weight=0.1)
    metrics = accumulate(policy, objective, collect(policy, objective, prompts(4)))
    assert metrics["cosine/a~b"] == pytest.approx(1.0)
    assert metrics["cosine/a~c"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["gradient/b"] == pytest.approx(100 * metrics["gradient/a"], rel=1e-4)
    assert metrics["reward/b"] == pytest.approx(100 * metrics["reward/a"], rel=1e-4)
    assert metrics["gradient/guidance"] > 0 and metrics["invalid/a"] == 0


def test_invalid_rows_push_nowhere() -> None:
    @dataclass
    class Half(Axis):
        def __call__(self, rollout: Rollout) -> Scores:
            scores = super().__call__(rollout)
            scores.status[0] = Status.ERROR
            scores.value = torch.cat([scores.value[:1] * float("nan"), scores.value[1:]])
            return scores

    policy = GaussianPolicy()
    objective = R0(Half(0, 1.0))
    rollout = policy.rsample(prompts(3), policy.draw(prompts(3), torch.Generator().manual_seed(0)))
    _, _, valid = output_gradient(Half(0, 1.0), rollout)
    assert valid.tolist() == [False, True, True]
    experience = collect(policy, objective, prompts(3))
    got = gradient(policy, objective, experience)
    assert got.isfinite().all() and got.norm() > 0
    assert accumulate(policy, objective, experience)["invalid/reward"] == pytest.approx(1 / 3)


def test_saturated_pixels_push_back_but_not_out() -> None:
    output = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 1.3, -0.2]).reshape(1, 1, 1, 7)
    gradient = torch.tensor([-1.0, 2.0, 3.0, 4.0, -5.0, 6.0, 7.0]).reshape(1, 1, 1, 7)
    assert drop_outward(gradient, output).flatten().tolist() == [0, 2, 3, 0, -5, 0, 7]
    sound = Audio(samples=output[0], rate=8)
    assert drop_outward(gradient[0], sound).flatten().tolist() == [-1, 2, 3, 0, -5, 0, 7]  # 0 is the middle of a wave


def test_the_mask_comes_before_the_norm() -> None:
    """Slope (3, 4) at the picture (0.3, 1): the white pixel may not go up, so the other keeps all of the norm."""

    @dataclass
    class Both:
        modalities = frozenset({"image"})
        differentiable = True

        def __call__(self, rollout: Rollout) -> Scores:
            x = rollout.output.flatten(1)
            return Scores.of(3 * x[:, 0] + 4 * x[:, 1])

    policy = Point()
    with torch.no_grad():
        policy.module[0].copy_(torch.tensor([0.3, 1.0]))
    found = {}
    for mask in (False, True):
        objective = R0(Both(), mask_saturated=mask)
        found[mask] = gradient(policy, objective, collect(policy, objective, prompts(1)))
    assert torch.allclose(found[False], torch.tensor([-0.6, -0.8], dtype=torch.float64))
    assert torch.allclose(found[True], torch.tensor([-1.0, 0.0], dtype=torch.float64))


def test_reward_graphs_are_gone_before_the_generator_goes_back() -> None:
    """The loss reaches the weights through the output alone: no saved tensor of a reward is in its graph."""

    class Heavy(NearPoint):
        alive: list[Any] = []

        def __call__(self, rollout: Rollout) -> Scores:
            import weakref

            hidden = (rollout.output.flatten(1) * 3).exp()
            Heavy.alive.append(weakref.ref(hidden))
            return Scores.of(hidden.sum(1))

    policy, objective = GaussianPolicy(), R0(Heavy())
    experience = collect(policy, objective, prompts(2))
    experience.weight = objective.weigh(experience.mask, lambda n: n)
    loss, _ = objective.loss(policy, experience, torch.Generator())
    assert loss.requires_grad and all(ref() is None for ref in Heavy.alive)


def test_sound_carries_gradient_too() -> None:
    class Loud:
        differentiable = True

        def __call__(self, rollout: Rollout) -> Scores:
            return Scores.of(rollout.output.samples.flatten(1).sum(1))

    class Sounds(GaussianPolicy):
        def rsample(self, batch: Any, draws: Any) -> Rollout:
            rollout = super().rsample(batch, draws)
            rollout.output = Audio(rollout.trajectory["x0"][:, None], 8000)
            return rollout

    policy, objective = Sounds(), R0(Loud())
    got = gradient(policy, objective, collect(policy, objective, prompts(2)))
    assert got.norm() > 0 and (got[:2] < 0).all()  # towards larger samples


def test_what_cannot_work_is_named() -> None:
    class Silent(NearPoint):
        def __call__(self, rollout: Rollout) -> Scores:
            return Scores.of(rollout.output.detach().flatten(1).sum(1))

    with pytest.raises(CapabilityError, match=r"r0 follows the rewards' gradient, but judge has none"):
        R0(Members(near=(NearPoint(), 1.0), judge=(Fixed([1.0]), 1.0)))
    policy = GaussianPolicy()
    with pytest.raises(CapabilityError, match=r"reward Silent calls itself differentiable"):
        gradient(policy, R0(Silent()), collect(policy, R0(Silent()), prompts(1)))
    with pytest.raises(
        CapabilityError, match=r"guidance_weight: Point has no guidance_direction; set guidance_weight: 0"
    ):
        collect(Point(), R0(NearPoint(), guidance_weight=1.0), prompts(1))
    with pytest.raises(ConfigError, match=r"objective\.samples_per_prompt: must be at least 1 \(got 0\)"):
        objectives.build({"name": "r0", "samples_per_prompt": 0}, "objective", reward=NearPoint())
    with pytest.raises(ConfigError, match=r"objective\._start: unknown option"):
        objectives.build({"name": "r0", "_start": {}}, "objective", reward=NearPoint())


def test_a_part_of_a_set_is_refused() -> None:
    class Spread(Axis):
        """A set reward as a reward of rows."""

        def embed(self, rollout: Rollout) -> torch.Tensor:
            """Each output is its own embedding."""
            return rollout.output

        def score(self, embedding: torch.Tensor) -> torch.Tensor:
            """The spread of the set."""
            return embedding.std()

    policy, objective = GaussianPolicy(), R0(Members(spread=(Spread(0, 1.0), 1.0)))
    found = collect(policy, objective, prompts(4))
    accumulate(policy, objective, found)
    for part in found.minibatches(2, torch.Generator().manual_seed(0)):
        accumulate(policy, objective, part)
    with pytest.raises(CapabilityError, match=r"r0: spread scores a set, .* set trainer.micro_batch_size: 0"):
        accumulate(policy, objective, found, rows=2)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_chunk_of_which_nothing_can_be_scored_stops_nothing(rows: int) -> None:
    @dataclass
    class Sometimes(Axis):
        def __call__(self, rollout: Rollout) -> Scores:
            if any(len(prompt.text) == 2 for prompt in rollout.prompts):
                raise RuntimeError("not now")
            return super().__call__(rollout)

    policy, objective = GaussianPolicy(), R0(Mix({"near": Sometimes(0, 1.0)}))
    experience = collect(policy, objective, prompts(4))
    found = gradient(policy, objective, experience, rows)
    assert found.norm() > 0
    torch.testing.assert_close(found, gradient(policy, objective, experience, 4), rtol=1e-5, atol=1e-7)
