from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Rollout, Status
from mmalign.objectives import objectives
from mmalign.objectives._selection import halves_of_pool, neighbours
from mmalign.objectives.dragon import DRAGON
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn, moved, outputs, stream
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearGaussian, NearPoint, prompts

VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sets": (NearGaussian(1.0, 0.5), {"builder": "greedy_swap", "accept": "gap"}),
    "knockout": (NearGaussian(1.0, 0.5), {"builder": "knockout"}),
    "sets, kto": (NearGaussian(1.0, 0.5), {"head": "kto", "draws": 2}),
    "pairs": (NearPoint((1.0, 1.0)), {"builder": "pair"}),
    "pool, kto": (NearPoint((1.0, 1.0)), {"builder": "pool", "head": "kto"}),
    "pool of credits": (NearGaussian(1.0, 0.5), {"builder": "pool"}),
}


@pytest.mark.parametrize(("reward", "options"), VARIANTS.values(), ids=VARIANTS.keys())
def test_learns(reward: Any, options: dict[str, Any]) -> None:
    policy, batch = GaussianPolicy(noisy=True), prompts(1) * 6  # one prompt: a pool cannot tell prompts from outputs
    objective = DRAGON(reward, samples_per_prompt=4, beta=0.2, **options)
    before = outputs(policy, batch)
    learn(policy, objective, batch, steps=25, lr=0.1)
    gap = [(made.mean(0) - 1).square().sum() for made in (before, outputs(policy, batch))]
    assert gap[1] < 0.4 * gap[0]


def test_a_set_reward_keeps_the_spread_that_a_row_reward_destroys() -> None:
    """The toy of the distributional claim, in one dimension of freedom: which way does the std of the outputs go?"""

    class Spread(GaussianPolicy):
        """One step whose std is learned too."""

        def __init__(self) -> None:
            super().__init__(steps=1)
            self.module.log_std = torch.nn.Parameter(torch.zeros(()))
            self.start = {k: v.clone() for k, v in self.module.state_dict().items()}

        @property
        def std(self) -> torch.Tensor:
            return self.module.get_parameter("log_std").exp()[None] if hasattr(self, "module") else torch.ones(1)

        @std.setter
        def std(self, value: torch.Tensor) -> None:
            pass

    spread = {}
    for name, reward, builder in (
        ("set", NearGaussian(0.0, 2.0), "greedy_swap"),
        ("row", NearPoint((0.0, 0.0)), "pair"),
    ):
        policy = Spread()
        objective = DRAGON(reward, builder=builder, samples_per_prompt=8, beta=0.1)  # type: ignore[arg-type]
        learn(policy, objective, prompts(4), steps=25, lr=0.05)
        spread[name] = float(policy.std.detach())
    assert spread["row"] < 0.75 and spread["set"] > 1.25


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(("reward", "options"), VARIANTS.values(), ids=VARIANTS.keys())
def test_gradient_is_the_same_for_any_split(reward: Any, options: dict[str, Any], double: bool) -> None:
    policy = moved(GaussianPolicy(noisy=True, double=double))
    objective = DRAGON(reward, samples_per_prompt=4, **options)
    experience = collect(policy, objective, prompts(4))
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 1e-4
    for rows in (1, 3):
        difference = gradient(policy, objective, experience, rows) - whole
        assert difference.norm() <= (1e-10 if double else 1e-5) * whole.norm()


def test_sets_share_their_prompts() -> None:
    pairs = collect(GaussianPolicy(), DRAGON(NearGaussian(), samples_per_prompt=4), prompts(5))
    assert len(pairs) == 10 and pairs.mask.all() and (pairs.gap > 0).all()
    assert [p.text for p in pairs.chosen.prompts] == [p.text for p in pairs.rejected.prompts]
    reward = NearGaussian()
    high, low = (reward.score(reward.embed(side)) for side in (pairs.chosen, pairs.rejected))
    assert (high - low).item() == pytest.approx(pairs.gap[0].item())


def test_metrics_before_the_first_update() -> None:
    policy, objective = GaussianPolicy(noisy=True), DRAGON(NearGaussian())
    pairs = collect(policy, objective, prompts(4))
    metrics = accumulate(policy, objective, pairs)
    assert metrics["margin/mean"] == 0 and metrics["pairs/skipped"] == 0
    assert metrics["pairs/gap"] == pytest.approx(pairs.gap.mean().item())


def test_equal_sets_teach_nothing() -> None:
    class Flat(NearGaussian):
        def score(self, embedding: torch.Tensor) -> torch.Tensor:
            return torch.zeros(())

    class Broken(NearGaussian):
        def score(self, embedding: torch.Tensor) -> torch.Tensor:
            return torch.tensor(float("nan"))

    policy = GaussianPolicy()
    for reward in (Flat(), Broken()):
        objective = DRAGON(reward)
        pairs = collect(policy, objective, prompts(3))
        assert gradient(policy, objective, pairs).abs().max() == 0
        assert accumulate(policy, objective, pairs)["pairs/skipped"] == 1


def test_a_row_that_does_not_embed_takes_only_its_pair_out() -> None:
    class Deaf(NearGaussian):
        def embed(self, rollout: Rollout) -> torch.Tensor:
            embedding = super().embed(rollout).clone()
            embedding[3] = float("nan")
            return embedding

    pairs = collect(GaussianPolicy(), DRAGON(Deaf()), prompts(5))
    assert pairs.mask.tolist() == [True, False, True, True, True]


def test_neighbours_and_pool_by_hand() -> None:
    value = torch.tensor([1.0, 2.0, 5.0, 5.0, float("nan"), 9.0, 4.0, 3.0])
    valid = value.isfinite()
    better, worse, mask = neighbours(value, valid)
    assert better[mask].tolist() == [1, 6] and worse[mask].tolist() == [0, 7]
    assert mask.tolist() == [True, False, False, True]
    better, worse, mask = halves_of_pool(value, valid)
    assert len(better) == 4 and mask.tolist() == [True, True, True, False]  # seven valid rows: the median stays out
    assert better[mask].tolist() == [5, 2, 3] and worse[mask].tolist() == [0, 1, 7]


def test_invalid_rows_never_pair() -> None:
    ok, bad = Status.OK, Status.TIMEOUT
    reward = Fixed([1.0, float("nan"), 2.0, 3.0], [ok, bad, ok, ok])
    pairs = collect(GaussianPolicy(), DRAGON(reward, builder="pair"), prompts(2))
    assert pairs.mask.tolist() == [False, True]


def test_a_mix_with_one_set_member_is_a_set_reward() -> None:
    class Mix:
        members = {"fad": (NearGaussian(), 2.0)}

        def __call__(self, rollout: Rollout) -> Any:
            raise AssertionError("greedy_swap scores sets")

    pairs = collect(GaussianPolicy(), DRAGON(Mix()), prompts(3))
    plain = collect(GaussianPolicy(), DRAGON(NearGaussian()), prompts(3))
    assert torch.equal(pairs.chosen.output, plain.chosen.output)
    assert torch.allclose(pairs.gap, 2 * plain.gap)


def test_what_cannot_work_is_named() -> None:
    with pytest.raises(
        CapabilityError, match="builder greedy_swap re-scores whole sets, and reward only scores single"
    ):
        collect(GaussianPolicy(), DRAGON(NearPoint()), prompts(2))
    for options, message in (
        ({"builder": "knockout", "samples_per_prompt": 6}, "samples_per_prompt: 6 sets cannot meet in rounds"),
        ({"samples_per_prompt": 3}, "samples_per_prompt: 3 does not make two equal sets"),
        ({"sweeps": 0, "beta": -1.0}, r"(?s)sweeps: must be at least 1.*beta: must be at least 0"),
        ({"builder": "greedy"}, "objective.builder: must be 'pair', 'greedy_swap', 'tournament', 'knockout' or 'pool'"),
    ):
        with pytest.raises(ConfigError, match=message):
            objectives.build({"name": "dragon", **options}, "objective", reward=NearGaussian())


def test_more_sweeps_never_hurt() -> None:
    gaps = []
    for sweeps in (1, 4):
        policy = GaussianPolicy()
        with torch.no_grad():
            pairs = DRAGON(NearGaussian(), sweeps=sweeps).collect(policy, prompts(10), stream(3))
        reward = NearGaussian()
        gaps.append(float(reward.score(reward.embed(pairs.chosen))))
    assert gaps[1] >= gaps[0]
