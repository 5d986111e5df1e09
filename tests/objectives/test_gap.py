"""What follows from the gap of two scores, and a reference that moves, through its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, DataError
from mmalign.core.types import Preference, Prompt
from mmalign.objectives._gap import BetaOfGap, beta_of_gap, label_of_gap
from mmalign.objectives.dpo import DPO
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from tests.objectives.driving import Fixed, collect, gradient, learn, preferences
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, ToyLatent, prompts


def with_gaps(gaps: list[Any]) -> list[Preference]:
    rows = preferences(len(gaps))
    return [
        replace(row, prompt=replace(row.prompt, meta={} if gap is None else {"gap": gap}))
        for row, gap in zip(rows, gaps, strict=True)
    ]


def test_beta_grows_with_the_gap_and_ends_at_its_limit() -> None:
    """1 + w (1 - e^(-k δ)): 1 at 0, slope w k there, 1 + w far out, and no less than 1."""
    gap = torch.tensor([0.0, 0.5, 1e6, -3.0], dtype=torch.float64, requires_grad=True)
    value = beta_of_gap(gap, 0.8, 2.0)
    want = torch.tensor([1.0, 1 + 0.8 * (1 - torch.e**-1), 1.8, 1.0], dtype=torch.float64)
    assert torch.allclose(value, want)
    (slope,) = torch.autograd.grad(value.sum(), gap)
    assert slope[1] == pytest.approx(0.8 * 2 * torch.e**-1)


def test_the_label_is_the_probability_of_the_gap() -> None:
    assert torch.allclose(label_of_gap(torch.tensor([0.0, 2.0]), 2.0), torch.tensor([0.5, 0.7310586]))


def test_given_pairs_read_their_gap() -> None:
    policy = GaussianPolicy(noisy=True, double=True)
    sharp = DPO(beta=0.5, beta_of_gap=BetaOfGap(weight=1.0, rate=1.0), label="gap", gap_scale=0.5)
    pairs = collect(policy, sharp, with_gaps([0.0, 1.0, "2", -1.0]))
    gap = torch.tensor([0.0, 1.0, 2.0, -1.0])
    assert torch.equal(pairs.gap, gap) and torch.allclose(pairs.label, (2 * gap).sigmoid())
    assert torch.allclose(pairs.beta, 1 + (1 - (-gap.clamp(min=0)).exp()))
    whole = gradient(policy, sharp, pairs)
    for rows in (1, 3):
        assert (gradient(policy, sharp, pairs, rows) - whole).norm() <= 1e-10 * whole.norm()
    plain = collect(policy, DPO(), with_gaps([0.0, 1.0, 2.0, 3.0]))
    assert plain.label is None and plain.beta is None and plain.gap is not None
    assert collect(policy, DPO(), preferences(3)).gap is None


def test_a_missing_gap_is_named() -> None:
    with pytest.raises(DataError, match=r"'gap' is None; expected by how much the chosen output's score exceeds"):
        collect(GaussianPolicy(), DPO(label="gap"), with_gaps([1.0, None]))
    with pytest.raises(DataError, match="'much' is 'wide'"):
        DPO(beta_of_gap=BetaOfGap(), gap_column="much").check_data(Prompt("x", meta={"much": "wide"}))
    DPO(beta_of_gap=BetaOfGap()).check_data(Prompt("x", meta={"gap": 1}))
    with pytest.raises(ConfigError, match="gap_scale: is the unit of the gap in a label"):
        DPO(gap_scale=2.0)
    with pytest.raises(ConfigError, match="reference_every: moves a reference, and there is none"):
        DPO(reference=False, reference_every=3)


def test_online_pairs_are_labelled_by_their_scores() -> None:
    objective = DPO(Fixed([0.0, 1.0, 3.0, 2.0]), online="all_pairs", group_size=4, label="gap")
    pairs = collect(GaussianPolicy(), objective, prompts(1))
    assert torch.allclose(pairs.label, pairs.gap.sigmoid()) and sorted(pairs.gap.tolist()) == [1, 1, 1, 2, 2, 3]


def test_the_optimum_of_labels_by_the_gap_is_the_gap_over_beta() -> None:
    """DNO's regression: the log-ratio's difference times β becomes the gap, here of one pair of a free policy."""
    lead = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    from mmalign.objectives._preferences import sigmoid

    optimizer = torch.optim.LBFGS([lead], max_iter=200, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sigmoid(lead, label_of_gap(torch.tensor([1.7], dtype=torch.float64), 1.0)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert lead.item() == pytest.approx(1.7, abs=1e-5)


def test_the_reference_becomes_the_policy() -> None:
    """With reference_every: 2 every second step begins at a margin of 0; the policy itself is as it was."""
    policy = Flow(ToyLatent(), noise_level=0, num_inference_steps=3)
    objective = DPO(NearPoint(), online="best_worst", beta=1.0, reference_every=2)
    margins = []
    for step in range(5):
        pairs = collect(policy, objective, prompts(3), seed=step)
        with torch.no_grad():
            now = policy.log_prob(pairs.chosen, pairs.probe)
        margins.append(float((now - pairs.ref_chosen).abs().max()))
        learn(policy, replace(objective, reference_every=0), prompts(3), steps=1, lr=0.05)
    assert margins[0] == 0 and margins[2] == 0 and margins[4] == 0 and min(margins[1], margins[3]) > 0


def test_it_moves_for_loras_too(lm: Callable[..., Any]) -> None:
    policy = Tokens(lm("llama"))
    batch = [Preference(Prompt("a red"), "circle", "square"), Preference(Prompt("two"), "a star", "circle")]
    objective = DPO(reference_every=1)
    collect(policy, objective, batch)
    with torch.no_grad():
        for weight in policy.adapter.trainable().values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        before = {name: weight.clone() for name, weight in policy.adapter.trainable().items()}
        pairs = collect(policy, objective, batch)
        assert torch.allclose(pairs.ref_chosen, policy.log_prob(pairs.chosen, {}), atol=1e-6)
        with policy.reference():
            assert not torch.allclose(pairs.ref_chosen, policy.log_prob(pairs.chosen, {}), atol=1e-3)
    assert all(torch.equal(before[name], weight) for name, weight in policy.adapter.trainable().items())


def test_a_policy_without_earlier_weights_is_refused() -> None:
    with pytest.raises(CapabilityError, match="reference_every: this policy cannot go back to earlier weights"):
        collect(GaussianPolicy(), DPO(reference_every=2), preferences(2))
    with pytest.raises(CheckpointError, match="holds no moving reference"):
        DPO(reference_every=2).load_state_dict({})


def test_a_resumed_run_goes_on_exactly(tmp_path: Path) -> None:
    """Four steps, and the last two again from the checkpoint between them: the same weights, by a moved reference."""
    rows = [
        {"prompt": f"{n} discs", "chosen": f"{n} circles", "rejected": "a red star"} for n in ("two", "three", "four")
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "dpo.yaml"
    run.write_text(
        "adapter: {name: causal_lm, model: assets/scenes_rewriter, train: lora, device: cpu}\n"
        "policy: {name: tokens, max_new_tokens: 8}\nrewards: {}\n"
        "objective: {name: dpo, reference_every: 1, beta: 0.5}\n"
        f"data: {{name: preferences, path: {data}}}\n"
        "trainer: {steps: 4, prompts_per_step: 3, lr: 1.0e-3, save_every: 2}\nevaluation: {count: 0}\n"
    )
    mmalign.train(run, out=tmp_path / "run")
    trained = mmalign.load_run(tmp_path / "run").parts.adapter.trainable()
    whole = {name: weight.detach().clone() for name, weight in trained.items()}
    assert next((tmp_path / "run/checkpoints").glob("*2/state/stateful.safetensors"))
    mmalign.train(tmp_path / "run/run.yaml", resume=f"{tmp_path / 'run'}@2")
    again = mmalign.load_run(tmp_path / "run").parts.adapter.trainable()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
