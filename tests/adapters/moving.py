"""Any family loaded, moved, and compared with itself: the policy of an adapter, and whether it agrees with itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmalign.adapters import adapters, load_adapter
from mmalign.core.experience import Experience, Transitions
from mmalign.objectives.grpo import GRPO
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from mmalign.training.checks import check_start
from tests.adapters.asked import Rising, asked_of

SHORT = {"stable_audio_3": {"seconds": 0.5}}
# every family that makes something: one that scores what others made has no ratio
NAMES = [name for name in adapters.built_in() if not hasattr(adapters.get(name), "score")]


def loaded(name: str, folder: Path, **options: Any) -> Any:
    options = {"lora": {"rank": 2}, **SHORT.get(name, {}), **options}
    return load_adapter(name, model=str(folder), device="cpu", **options)


def policy_of(adapter: Any) -> Any:
    if hasattr(adapter, "begin"):
        return Tokens(adapter=adapter, max_new_tokens=5)
    kind = Flow if adapter.prediction == "flow" else Ddpm
    return kind(adapter=adapter, num_inference_steps=3)


def move(adapter: Any, scale: float = 0.05) -> None:
    """Every weight that trains, B of a LoRA included."""
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.add_(scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))


def collected(policy: Any) -> Experience:
    prompts = asked_of(policy.adapter)
    with torch.no_grad():
        return GRPO(reward=Rising(), group_size=2, beta=0.1).collect(policy, prompts, torch.Generator().manual_seed(0))


def check_on_policy(adapter: Any, fresh: bool) -> Transitions:
    """`kl/old` of an update is 0 where these two log-probs agree, the one with gradient, as updates have it."""
    policy = policy_of(adapter)
    experience = collected(policy)
    assert isinstance(experience, Transitions)
    check_start(policy, experience, len(experience), fresh=fresh, moved=not fresh)
    now = policy.step_dist(experience.rollout)  # with gradient
    gap = (now.log_prob - experience.old.log_prob).abs().max()
    assert gap <= 1e-5 * experience.old.log_prob.abs().max().clamp(min=1), gap
    again = policy.step_dist(experience.rollout)
    assert torch.equal(again.log_prob, now.log_prob)
    assert not any(part.training for part in adapter.module.modules())
    return experience
