"""What policies refuse, and how they say it."""

import dataclasses
from typing import Any, Literal

import pytest
import torch

from mmalign.core.capabilities import offers
from mmalign.core.errors import ConfigError
from mmalign.core.options import one_of
from mmalign.core.protocols import DensityPolicy, DiffPolicy, Prediction, StepPolicy
from mmalign.core.types import NoiseLevel
from mmalign.policies import policies
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.few_step import FewStep
from mmalign.policies.flow import Flow
from tests.toys import ToyLatent, prompts


def test_the_registry_knows_the_policies_by_file() -> None:
    assert {"flow", "ddpm", "few_step"} <= set(policies.names())
    assert [policies.get(name) for name in ("flow", "ddpm", "few_step")] == [Flow, Ddpm, FewStep]


def test_each_offers_its_capabilities_and_no_more() -> None:
    can = {cls: [offers(cls, c) for c in (StepPolicy, DensityPolicy, DiffPolicy)] for cls in (Flow, Ddpm, FewStep)}
    assert can == {Flow: [True, True, False], Ddpm: [True, True, False], FewStep: [False, False, True]}


def test_unknown_words_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"window is 'randm'; it must be one of all, random\. Did you mean 'random'"):
        one_of("window", "randm", Literal["all", "random"])


@pytest.mark.parametrize(
    ("cls", "prediction", "options", "message"),
    [
        (Flow, "epsilon", {}, "'flow' needs an adapter that predicts flow, and this one .* epsilon; use policy 'ddpm'"),
        (Ddpm, "flow", {}, "'ddpm' needs an adapter that predicts epsilon or v.* flow; use policy 'flow'"),
        (Flow, "flow", {"num_inference_steps": 0}, "num_inference_steps is 0; it must be at least 1"),
        (Flow, "flow", {"num_inference_steps": 1}, "no step of window_range .* can carry noise: of 1 steps"),
        (Flow, "flow", {"noise_level": 1.5}, r"noise_level is 1.5; it must lie in \[0, 1\]"),
        (Flow, "flow", {"sde": "dance", "noise_level": -0.1}, r"noise_level is -0.1; it must lie in \[0, inf\]"),
        (Flow, "flow", {"eval_steps": 0}, "eval_steps is 0"),
        (Flow, "flow", {"rows": -1}, "rows is -1; it must be at least 0"),
        (Flow, "flow", {"window": "first", "window_size": 10}, "window_size is 10 but only 9 steps can carry noise"),
        (Ddpm, "v", {"eta": 1.2}, r"eta is 1.2; it must lie in \[0, 1\]"),
        (FewStep, "flow", {"eta": (0.5, 0.2)}, r"eta is \(0.5, 0.2\); it must be \(low, high\)"),
        (FewStep, "flow", {"guide_levels": (0.5, 1.2)}, r"guide_levels is \(0.5, 1.2\)"),
        (FewStep, "flow", {"grad_steps": 5}, r"grad_steps is 5; it must lie in \[0, 4\]"),
        (FewStep, "flow", {"grad_steps": 2, "random_step": True}, "random_step takes gradient at one step per row"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(
    cls: Any, prediction: Prediction, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(ToyLatent(prediction), **options)


def test_run_files_build_policies_and_see_their_faults() -> None:
    adapter = ToyLatent()
    spec = {"name": "flow", "window": "random", "window_size": 2, "window_range": [0, 0.5], "noise_level": "3e-1"}
    built = policies.build(spec, "policy", adapter=adapter)
    assert isinstance(built, Flow)
    assert (built.window_range, built.noise_level) == ((0.0, 0.5), 0.3)
    assert policies.build({"name": "few_step", "eta": [0, 1]}, "policy", adapter=adapter).eta == (0, 1)
    with pytest.raises(ConfigError, match=r"policy.sde: must be 'flow_sde', 'cps' or 'dance'"):
        policies.build({"name": "flow", "sde": "ddim"}, "policy", adapter=adapter)
    with pytest.raises(ConfigError, match="policy: window 'random' needs window_size >= 1"):
        policies.build({"name": "flow", "window": "random"}, "policy", adapter=adapter)
    with pytest.raises(ConfigError, match=r"policy\.noise_lvl: unknown option\. Did you mean 'noise_level'"):
        policies.build({"name": "flow", "noise_lvl": 1}, "policy", adapter=adapter)


@pytest.mark.parametrize("cls", [Flow, Ddpm])
def test_options_are_given_by_keyword(cls: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        cls(ToyLatent("flow" if cls is Flow else "v"), 10)


def test_the_two_diffusion_policies_differ_in_the_options_of_their_noise_alone() -> None:
    options = {cls: {f.name: f.default for f in dataclasses.fields(cls)} for cls in (Flow, Ddpm)}
    assert options[Flow].keys() ^ options[Ddpm].keys() == {"sde", "noise_level", "eta"}
    shared = options[Flow].keys() & options[Ddpm].keys()
    differing = {name: (options[Flow][name], options[Ddpm][name]) for name in shared}
    assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {
        "num_inference_steps": (10, 50),
        "weighting": ("const_v", "plain"),
        "density_levels": ("logit_normal", "uniform"),
    }


class Unloaded:
    """An adapter before `load`: it knows what it predicts, and nothing else."""

    prediction = "flow"


UNLOADED: Any = Unloaded()


def test_policies_are_built_and_checked_before_any_weight_is_loaded() -> None:
    assert Flow(UNLOADED).window == "all"
    with pytest.raises(ValueError, match="window_size is 10 but only 9 steps can carry noise"):
        Flow(UNLOADED, window="first", window_size=10)
    assert Flow(None).adapter is None  # the fault of an adapter that could not be built is reported as its own


def test_a_schedule_that_cannot_hold_the_window_says_so_when_sampling() -> None:
    class Steep(ToyLatent):
        """The noise of every step but the first cannot be removed: it lands right at the data."""

        def schedule(self, num_inference_steps: int) -> NoiseLevel:
            t = torch.tensor([1.0, 0.5, 0.004, 0.002, 0.0])
            return NoiseLevel(times=t, alpha=1 - t, sigma=t)

    made = Flow(Steep(), sde="dance", num_inference_steps=4, window="first", window_size=3)
    with pytest.raises(ConfigError, match=r"window_size is 3 but only 1 steps can carry noise: \[0\]"):
        made.sample(prompts(2), torch.Generator())
