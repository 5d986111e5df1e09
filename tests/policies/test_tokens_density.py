"""Log-probs and entropies of completions against transformers in float64, and what must not change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Prompt, Rollout
from mmalign.policies import _tokens_density
from mmalign.policies.tokens import Tokens
from tests.policies.codebooks import FILL, Frames, V

Lm = Callable[..., Any]
FAMILIES = ["qwen2", "llama", "gpt2"]
PROMPTS = [Prompt(text) for text in ["a red cube", "two dogs asleep a b c d e f good", "a red cube", "say", "say", "b"]]
OUTPUTS = ["good bad", "a", "two dogs asleep a b c d e f", "", "red cube c", "bad bad bad bad"]


def observed(policy: Tokens) -> Rollout:
    return policy.observe(PROMPTS, OUTPUTS)


def exact(adapter: Any, folder: Path, rollout: Rollout, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of every row by itself: no padding, no cache, float64, transformers alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    logps, entropies = torch.zeros(rollout.mask.shape).double(), torch.zeros(rollout.mask.shape).double()
    for i, prompt in enumerate(rollout.prompts):
        ids = rollout.trajectory["tokens"][i][rollout.mask[i]]
        start = adapter.encode([prompt])[0]["input_ids"]
        with torch.no_grad():
            logits = model(torch.cat([start, ids])[None]).logits[0, len(start) - 1 : -1] / temperature
        said = logits.log_softmax(-1)
        logps[i, : len(ids)] = said.gather(1, ids[:, None])[:, 0]
        entropies[i, : len(ids)] = torch.distributions.Categorical(logits=logits).entropy()
    return logps, entropies


@pytest.mark.parametrize("rows", [0, 2, 3])
def test_sides_judged_together_are_the_sides_judged_apart(lm: Lm, rows: int) -> None:
    policy = Tokens(lm("qwen2", train="full"), rows=rows)
    sides = [observed(policy), policy.observe(PROMPTS, ["red", "", "cube a b", "a", "two dogs asleep a b", "bad"])]
    forwarded = []
    policy.module.register_forward_pre_hook(lambda *given: forwarded.append(given[2]["input_ids"]), with_kwargs=True)
    together = policy.log_probs(sides, {})
    paid = sum(ids.numel() for ids in forwarded)
    forwarded.clear()
    for got, side in zip(together, sides, strict=True):
        apart = policy.log_prob(side, {})
        assert got.shape == apart.shape and (got - apart).abs().max() <= 1e-5
    if not rows:
        assert paid < sum(ids.numel() for ids in forwarded)  # five distinct prompts were forwarded once, not twice
    gradients = [
        torch.autograd.grad(
            torch.stack([t.sum() for t in terms]).sum(), [*policy.adapter.trainable().values()], allow_unused=True
        )
        for terms in (policy.log_probs(sides, {}), [policy.log_prob(side, {}) for side in sides])
    ]
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None) and (a is None or (a - b).norm() <= 1e-5 * b.norm())


def test_sides_without_tokens_are_refused(lm: Lm) -> None:
    policy = Tokens(lm("qwen2"))
    said = observed(policy)
    with pytest.raises(CapabilityError, match="this rollout holds no tokens"):
        policy.log_probs([said, replace(said, trajectory={})], {})


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("share", [True, False])
def test_they_are_transformers_in_float64(kind: str, share: bool, lm: Lm, lm_folder: Lm) -> None:
    policy = Tokens(lm(kind, share_prompts=share), temperature=0.7)
    rollout = observed(policy)
    dist = policy.step_dist(rollout)
    logps, entropies = exact(policy.adapter, lm_folder(kind), rollout, 0.7)
    assert dist.log_prob.dtype == torch.float32
    assert (dist.log_prob - logps).abs().max() <= 1e-5
    assert (dist.entropy - entropies).abs().max() <= 1e-5
    assert torch.equal(dist.log_prob, policy.log_prob(rollout, {}))
    assert policy.probe(rollout, torch.Generator()) == {}


def gradient(policy: Tokens, rollout: Rollout, weight: Tensor, steps: slice = slice(None)) -> Tensor:
    parameters = list(policy.adapter.trainable().values())
    (policy.step_dist(rollout, steps).log_prob * weight[:, steps]).sum().backward()
    found = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    policy.module.zero_grad()
    return found


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_gradient_is_that_of_transformers_and_of_any_split(kind: str, lm: Lm) -> None:
    adapter = lm(kind, train="full")
    policy = Tokens(adapter)
    rollout = observed(policy)
    weight = torch.randn(rollout.mask.shape) * rollout.mask
    total = torch.zeros(())
    for i, prompt in enumerate(rollout.prompts):
        ids = rollout.trajectory["tokens"][i][rollout.mask[i]]
        start = policy.adapter.encode([prompt])[0]["input_ids"]
        logits = adapter.network.model(torch.cat([start, ids])[None]).logits[0, len(start) - 1 : -1]
        total = total + (logits.log_softmax(-1).gather(1, ids[:, None])[:, 0] * weight[i, : len(ids)]).sum()
    total.backward()
    parameters = policy.adapter.trainable().values()
    wanted = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    policy.module.zero_grad()
    ways = {
        "as it is": lambda: gradient(policy, rollout, weight),
        "three positions at a time": lambda: gradient(replace(policy, positions=3), rollout, weight),
        "micro-batches": lambda: gradient(replace(policy, rows=2), rollout, weight),
        "row by row": lambda: sum(gradient(policy, rollout[i : i + 1], weight[i : i + 1]) for i in range(6)),
        "two slices of steps": lambda: sum(gradient(policy, rollout, weight, s) for s in (slice(0, 4), slice(4, None))),
    }
    for name, way in ways.items():
        assert (way() - wanted).norm() <= 1e-5 * wanted.norm(), name
    adapter.share_prompts = False
    assert (gradient(policy, rollout, weight) - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bloom"])
def test_padding_company_and_slices_change_nothing(kind: str, lm: Lm) -> None:
    policy = Tokens(lm(kind))
    rollout = observed(policy)
    with torch.no_grad():
        whole = policy.step_dist(rollout)
        alone = torch.cat([policy.log_prob(rollout[i : i + 1], {}) for i in range(6)])
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        shuffled = policy.step_dist(rollout[order])
        sliced = replace(policy, positions=2).step_dist(rollout)
        chunks = replace(policy, rows=4).step_dist(rollout)
        longer = replace(
            rollout,
            mask=torch.nn.functional.pad(rollout.mask, (0, 5)),
            trajectory={"tokens": torch.nn.functional.pad(rollout.trajectory["tokens"], (0, 5), value=7)},
        )
        wide = policy.step_dist(longer)
    assert (alone - whole.log_prob).abs().max() <= 1e-5
    assert (shuffled.log_prob - whole.log_prob[order]).abs().max() <= 1e-5
    for other in (sliced, chunks):
        assert (other.log_prob - whole.log_prob).abs().max() <= 1e-5
        assert (other.entropy - whole.entropy).abs().max() <= 1e-5
    assert torch.equal(wide.log_prob[:, :-5], whole.log_prob) and not wide.log_prob[:, -5:].any()


def test_slices_over_steps_are_the_steps(lm: Lm) -> None:
    policy = Tokens(lm())
    rollout = observed(policy)
    with torch.no_grad():
        whole = policy.step_dist(rollout)
        for steps in (slice(0, 3), slice(2, 7), slice(9, 10), slice(-2, None)):
            part = policy.step_dist(rollout, steps)
            assert part.log_prob.shape == whole.log_prob[:, steps].shape
            assert (part.log_prob - whole.log_prob[:, steps]).abs().max() <= 1e-5
            assert (part.entropy - whole.entropy[:, steps]).abs().max() <= 1e-5
    with pytest.raises(ValueError, match=r"selects none of the 10 recorded steps"):
        policy.step_dist(rollout, slice(10, 12))


def test_a_part_without_live_steps_still_has_a_gradient_of_zero(lm: Lm) -> None:
    policy = Tokens(lm())
    rollout = observed(policy)[3:4]  # the empty answer: one step, its end
    dist = policy.step_dist(rollout, slice(5, 9))
    assert not dist.log_prob.any()
    dist.log_prob.sum().backward()
    assert not any(p.grad.any() for p in policy.adapter.trainable().values() if p.grad is not None)


def test_logits_of_a_batch_never_exist_at_once(lm: Lm, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = lm()
    policy = Tokens(adapter)
    sizes: list[int] = []
    whole = policy.step_dist(observed(policy)).log_prob
    logits = adapter.network.head

    def noted(hidden: Tensor) -> Tensor:
        sizes.append(len(hidden))
        return logits(hidden)

    monkeypatch.setattr(adapter.network, "head", noted)
    monkeypatch.setattr(_tokens_density, "LOGITS_AT_ONCE", 4 * adapter.vocabulary)
    dist = policy.step_dist(observed(policy))
    assert max(sizes) == 4 and sum(sizes) == int(observed(policy).mask.sum())  # and of live positions alone
    assert (dist.log_prob - whole).abs().max() <= 1e-6
    sizes.clear()
    dist.log_prob.sum().backward()
    assert max(sizes) == 4 and sum(sizes) == int(observed(policy).mask.sum())  # made again, slice by slice


def test_the_entropy_may_carry_gradient(lm: Lm) -> None:
    policy = Tokens(lm(train="full"))
    rollout = observed(policy)
    assert not policy.step_dist(rollout).entropy.requires_grad
    assert replace(policy, entropy="off").step_dist(rollout).entropy is None
    held = replace(policy, entropy="differentiable")
    weights = policy.adapter.trainable()["model.norm.weight"]
    held.step_dist(rollout).entropy.sum().backward()
    slope, step = weights.grad[0].item(), 1e-2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weights[0] += sign * step
            values.append(held.step_dist(rollout).entropy.double().sum().item())
            weights[0] -= sign * step
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=1e-3)


def test_reduced_precision_ends_in_float32(lm: Lm, lm_folder: Lm) -> None:
    policy = Tokens(lm(dtype="bf16"))
    rollout = observed(policy)
    dist = policy.step_dist(rollout)
    logps, _ = exact(policy.adapter, lm_folder(), rollout)
    assert dist.log_prob.dtype == dist.entropy.dtype == torch.float32
    assert 0 < (dist.log_prob - logps).abs().max() < 0.5  # bf16 arithmetic, but not log-probs in steps of 1/16
    assert dist.log_prob[rollout.mask].mul(1024).frac().any()


def test_codebooks_are_summed_per_step_and_fills_count_for_nothing() -> None:
    adapter = Frames()
    policy = Tokens(adapter, max_new_tokens=5, temperature=0.8)
    prompts = [Prompt("x"), Prompt("xx"), Prompt("x")]
    rollout = policy.sample(prompts, torch.Generator().manual_seed(0))
    tokens = rollout.trajectory["tokens"]
    assert tokens.shape == (3, 5, 2) and (tokens[:, 0, 1] == FILL).all() and (tokens[:, 1:] < V).all()
    assert rollout.truncated is None and rollout.mask.all() and policy.event_size == 2
    assert adapter.prompts_forwarded == 2
    dist = policy.step_dist(rollout)
    assert (dist.log_prob - rollout.step_logp).abs().max() <= 1e-6
    for row in range(3):
        inputs = adapter.encode(prompts)
        before = torch.tensor([[FILL, FILL], *tokens[row, :-1].tolist()])
        logits = adapter.logits(adapter._at(inputs, torch.full((5,), row), before)) / 0.8
        chances = torch.distributions.Categorical(logits=logits)
        free = tokens[row] < V
        wanted = chances.log_prob(tokens[row].clamp(max=V - 1)).where(free, 0.0).sum(1)
        assert torch.allclose(dist.log_prob[row], wanted, atol=1e-6)
        assert torch.allclose(dist.entropy[row], chances.entropy().where(free, 0.0).sum(1), atol=1e-6)
    again = policy.observe(prompts, rollout.output)
    assert torch.equal(again.trajectory["tokens"], tokens)
    with pytest.raises(CapabilityError, match=r"repetition penalties are for texts, and this adapter makes codebooks"):
        replace(policy, no_repeat_ngram=2).sample(prompts, torch.Generator())


def test_a_rollout_of_something_else_is_refused(lm: Lm) -> None:
    strange = Rollout(prompts=[Prompt("a")], output=["a"], group=torch.zeros(1, dtype=torch.long))
    with pytest.raises(CapabilityError, match=r"holds no tokens; use a rollout of sample\(\), generate\(\)"):
        Tokens(lm()).step_dist(strange)
