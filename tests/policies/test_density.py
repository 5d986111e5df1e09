"""The surrogate density against numpy in float64 and against the relations between its weightings."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.protocols import Prediction
from mmalign.core.types import NoiseLevel, Rollout
from mmalign.policies._surrogate import bound_weight, error_weight, named_weighting
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from tests.policies.worlds import CountingLatent, DoubleLatent, descend, generator, gradient, grouped, jolt, slope
from tests.toys import ToyLatent, prompts


def policy(prediction: Prediction, adapter: Any = None, **options: Any) -> Any:
    cls = Flow if prediction == "flow" else Ddpm
    return cls(adapter or ToyLatent(prediction), num_inference_steps=5, **options)


def network(adapter: ToyLatent, x: np.ndarray, time: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The toy's MLP, written again in numpy."""
    first, last = (cast(nn.Linear, adapter.network[i]) for i in (0, 2))
    weights = [p.detach().double().numpy() for p in (first.weight, first.bias, last.weight, last.bias)]
    hidden = np.concatenate([x, time[:, None], text], 1) @ weights[0].T + weights[1]
    return hidden / (1 + np.exp(-hidden)) @ weights[2].T + weights[3]


def numpy_terms(made: Any, rollout: Rollout, probe: dict[str, torch.Tensor], weighting: str) -> np.ndarray:
    adapter, kind = made.adapter, made.adapter.prediction
    x0 = rollout.trajectory["x0"].double().numpy().reshape(len(rollout), 2)
    text = np.array([[len(p.text) % 3] for p in rollout.prompts], dtype=float)
    draws, terms = probe["u"].shape[1], []
    for d in range(draws):
        u = probe["u"][:, d].double().numpy()
        e = probe["noise"][:, d].double().numpy().reshape(len(rollout), 2)
        if kind == "flow":
            t = u
            alpha, sigma, time, aim = 1 - u, u, u, e - x0
            on_error = {"const_v": 1.0 + 0 * t, "const_eps": (1 - t) ** 2, "elbo": 2 * (1 - t) / t}[weighting]
        else:
            kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
            index = (u * 1000).astype(int)
            alpha, sigma, time = np.sqrt(kept[index]), np.sqrt(1 - kept[index]), index / 1000
            aim = e if kind == "epsilon" else alpha[:, None] * e - sigma[:, None] * x0
            on_noise = {"const_v": 1 / alpha**2, "const_eps": 1.0 + 0 * u}.get(weighting)
            if weighting == "elbo":
                log_snr = np.log(kept / (1 - kept))
                on_noise = -np.gradient(log_snr, 1 / 1000)[index]
            on_error = on_noise if kind == "epsilon" else on_noise * alpha**2
        if weighting == "elbo" and made.density_levels == "logit_normal":
            z = np.log(u / (1 - u))
            on_error = on_error / (np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (u * (1 - u)))
        x = alpha[:, None] * x0 + sigma[:, None] * e
        terms.append(-0.5 * on_error * ((aim - network(adapter, x, time, text)) ** 2).sum(1) / draws)
    return np.stack(terms, 1)


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
@pytest.mark.parametrize("weighting", ["const_v", "const_eps", "elbo"])
@pytest.mark.parametrize("levels", ["uniform", "logit_normal"])
@pytest.mark.parametrize("rows", [0, 5])
def test_terms_are_those_of_an_independent_computation(
    prediction: Prediction, weighting: str, levels: str, rows: int
) -> None:
    made = policy(prediction, weighting=weighting, density_levels=levels, rows=rows)
    rollout = made.observe(grouped(), torch.rand(12, 1, 1, 2))
    probe = made.probe(rollout, generator(), draws=3)
    found = made.log_prob(rollout, probe)
    assert found.shape == (12, 3)
    assert found.requires_grad
    wanted = numpy_terms(made, rollout, probe, weighting)
    # The slope of a discrete schedule is a finite difference over four entries of its table.
    loose = 2e-2 if weighting == "elbo" and prediction != "flow" else 2e-3
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=loose, atol=1e-5)


def test_weightings_are_related_as_the_papers_say() -> None:
    t = torch.linspace(0.05, 0.95, 19)
    assert error_weight("flow", 1 - t, t, "const_v").eq(1).all()
    assert error_weight("epsilon", 1 - t, t, "const_eps").eq(1).all()
    torch.testing.assert_close(error_weight("flow", 1 - t, t, "const_eps"), (1 - t).square())
    torch.testing.assert_close(bound_weight(ToyLatent(), t), 2 * (1 - t) / t, rtol=1e-3, atol=0)
    alpha = torch.cos(t)
    for weighting in ("const_eps", "const_v"):  # one weighting, seen through ε or through v = ε-error / α
        on_noise, on_velocity = (error_weight(kind, alpha, torch.sin(t), weighting) for kind in ("epsilon", "v"))
        torch.testing.assert_close(on_velocity, alpha.square() * on_noise)


def test_a_velocity_at_pure_noise_has_a_finite_weight() -> None:
    nothing = torch.zeros(1)  # α = 0: the zero terminal SNR of v-prediction models
    assert error_weight("v", nothing, nothing + 1, "const_v").item() == 1
    assert error_weight("v", nothing, nothing + 1, "const_eps").item() == 0


def test_the_default_is_the_plain_error_of_what_the_network_predicts() -> None:
    assert policy("flow").weighting == "const_v"
    assert policy("epsilon").weighting == policy("v").weighting == "plain"
    assert [named_weighting("plain", kind) for kind in ("epsilon", "v", "flow")] == ["const_eps", "const_v", "const_v"]
    alpha, sigma = torch.tensor([0.6, 0.1]), torch.tensor([0.8, 0.99])
    for kind in ("epsilon", "v", "flow"):
        assert error_weight(kind, alpha, sigma, "plain").eq(1).all()


class Shifted(ToyLatent):
    """A flow whose schedule is shifted toward noise, t = 3u / (1 + 2u)."""

    def level(self, u: torch.Tensor) -> NoiseLevel:
        t = 3 * u / (1 + 2 * u)
        return NoiseLevel(times=t, alpha=1 - t, sigma=t)


def test_the_bound_does_not_depend_on_the_schedule_or_on_the_distribution_of_levels() -> None:
    """E over draws of the elbo terms is one number, so shifted and logit-normal draws agree with plain ones."""
    found = {}
    for name, adapter, levels in (
        ("plain", ToyLatent(), "uniform"),
        ("shifted", Shifted(), "uniform"),
        ("logit_normal", ToyLatent(), "logit_normal"),
    ):
        made = policy("flow", adapter, weighting="elbo", density_levels=levels)
        rollout = made.observe(prompts(1) * 50_000, torch.full((50_000, 1, 1, 2), 0.5))
        with torch.no_grad():
            for parameter in adapter.module.parameters():
                parameter.zero_()
            probe = made.probe(rollout, generator(), draws=1)
            keep = (adapter.level(probe["u"]).sigma > 0.1) & (adapter.level(probe["u"]).sigma < 0.9)
            found[name] = (made.log_prob(rollout, probe) * keep).mean().item()
    assert found["shifted"] == pytest.approx(found["plain"], rel=0.04)
    assert found["logit_normal"] == pytest.approx(found["plain"], rel=0.04)
    # −∫ (1−t)/t E‖ε − x0‖² dt over [0.1, 0.9] with E‖ε − x0‖² = 2 + 2 · 0.25
    assert found["plain"] == pytest.approx(-2.5 * (math.log(9) - 0.8), rel=0.04)


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_the_reference_and_the_untrained_policy_agree_and_a_better_model_is_likelier(prediction: Prediction) -> None:
    made = policy(prediction)
    rollout = made.sample(grouped(), generator())
    probe = made.probe(rollout, generator(1), draws=2)
    start = made.log_prob(rollout, probe)
    jolt(made.adapter)
    with made.reference():
        assert torch.equal(made.log_prob(rollout, probe), start)
    moved = made.log_prob(rollout, probe).sum().item()
    descend(made.adapter, lambda: -made.log_prob(rollout, probe).sum(), steps=20, rate=0.02)
    assert made.log_prob(rollout, probe).sum().item() > moved


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_gradients_are_those_of_finite_differences(prediction: Prediction) -> None:
    adapter = DoubleLatent(prediction, width=4)
    made = policy(prediction, adapter)
    rollout = made.observe(prompts(2), torch.rand(2, 1, 1, 2))
    rollout.trajectory["x0"] = rollout.trajectory["x0"].double()
    probe = made.probe(rollout, generator(), draws=2)

    def value() -> torch.Tensor:
        return made.log_prob(rollout, probe).sum()

    torch.testing.assert_close(gradient(adapter, value), slope(adapter, value), rtol=1e-5, atol=1e-5)


def test_guidance_is_off_in_the_density() -> None:
    adapter = CountingLatent()
    made = policy("flow", adapter, guidance_scale=5.0)
    rollout = made.observe(prompts(4), torch.rand(4, 1, 1, 2))
    made.log_prob(rollout, made.probe(rollout, generator(), draws=3))
    assert adapter.forwards == [4, 4, 4]


def test_what_cannot_be_judged_is_said() -> None:
    made = policy("flow")
    with pytest.raises(DataError, match="observe: 3 prompts but 2 outputs"):
        made.observe(prompts(3), torch.rand(2, 1, 1, 2))
    rollout = made.observe(prompts(3), torch.rand(3, 1, 1, 2))
    with pytest.raises(ValueError, match="draws is 0; it must be at least 1"):
        made.probe(rollout, generator(), draws=0)
    probe = made.probe(rollout, generator())
    rollout.trajectory = {}
    with pytest.raises(CapabilityError, match=r"log_prob needs trajectory\['x0'\]"):
        made.log_prob(rollout, probe)


def test_draws_are_independent_and_uniform_or_logit_normal() -> None:
    made = {levels: policy("flow", density_levels=levels) for levels in ("uniform", "logit_normal")}
    rollout = made["uniform"].observe(prompts(2), torch.rand(2, 1, 1, 2))
    u = made["uniform"].probe(rollout, generator(), draws=20000)["u"]
    assert u.mean().item() == pytest.approx(0.5, abs=0.01)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    z = torch.logit(made["logit_normal"].probe(rollout, generator(), draws=20000)["u"])
    assert (z.mean().item(), z.std().item()) == pytest.approx((0, 1), abs=0.02)
    correlation = torch.corrcoef(torch.stack([u[:, :-1].flatten(), u[:, 1:].flatten()]))[0, 1]
    assert abs(correlation.item()) < 0.02
