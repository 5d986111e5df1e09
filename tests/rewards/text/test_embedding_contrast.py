"""GRACE's reward by a loop, in the policy's own states, and what is said where there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmalign.adapters import load_adapter
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.policies.tokens import Tokens
from mmalign.rewards import load_reward
from mmalign.rewards.functional import embedding_contrast

VIEWS, GROUPS = [0, 0, 0, 0, 1, 1, 1, 1, None], [0, 0, 1, 1, 2, 2, 3, 3, 4]


def rollout() -> Rollout:
    prompts = [Prompt(f"p{group}", meta={"view_of": view}) for view, group in zip(VIEWS, GROUPS, strict=True)]
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    return Rollout(prompts, [f"t{i}" for i in range(9)], torch.tensor(GROUPS), trajectory={"features": features})


def test_the_value_is_the_formula() -> None:
    made = rollout()
    scores = load_reward("embedding_contrast", own=0.3, across=0.4, temperature=0.5)(made)
    features = made.trajectory["features"].double()
    cosine = torch.cosine_similarity(features[:, None], features[None], dim=2)
    for i in range(8):
        others = [j for j in range(9) if VIEWS[j] != VIEWS[i]]
        positive = [cosine[i, j] for j in range(9) if VIEWS[j] == VIEWS[i] and GROUPS[j] != GROUPS[i]]
        own = [cosine[i, j] for j in range(9) if GROUPS[j] == GROUPS[i] and j != i]
        across = [max(cosine[i, j] for j in others if GROUPS[j] == group) for group in {GROUPS[j] for j in others}]
        parts = [sum(positive) / 2, sum(cosine[i, j] for j in others) / len(others), own[0], sum(across) / len(across)]
        want = (parts[0] - parts[1] + 0.3 * parts[2] - 0.4 * parts[3]) / 0.5
        assert float(scores.value[i]) == pytest.approx(float(want), abs=1e-5)
    assert scores.status.tolist() == [0] * 8 + [int(Status.NOT_APPLICABLE)] and bool(scores.value[8].isnan())


def test_every_term_differs_inside_a_group() -> None:
    parts = embedding_contrast(
        rollout().trajectory["features"], torch.tensor(GROUPS), torch.tensor([0] * 4 + [1] * 4 + [2])
    )
    for name in ("positive", "negative", "across"):
        assert float((parts[name][0] - parts[name][1]).abs()) > 1e-3, name


def test_the_policy_keeps_what_it_reads() -> None:
    adapter = load_adapter("causal_lm", model="assets/scenes_rewriter", device="cpu", train="frozen")
    prompts = [
        Prompt(text, meta={"view_of": view}) for text, view in [("four discs", 0), ("four circles", 0), ("a star", 1)]
    ]
    asked = [prompt for prompt in prompts for _ in range(2)]
    policy = Tokens(adapter, max_new_tokens=6, keep_features=True)
    made = policy.sample(asked, torch.Generator().manual_seed(0))
    scores = load_reward("embedding_contrast")(made)
    assert scores.status.tolist() == [0] * 4 + [int(Status.NOT_APPLICABLE)] * 2
    assert bool((scores.value[:4].abs() <= 24).all())
    without = replace(made, trajectory={"tokens": made.trajectory["tokens"]})
    failed = load_reward("embedding_contrast")(without)
    assert set(failed.status.tolist()) == {int(Status.ERROR)} and "policy.keep_features: true" in failed.info[0]
