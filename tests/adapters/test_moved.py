"""On policy the ratio is 1 and the KL 0 also where a LoRA adds something: after steps, and from another one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters import adapters, load_adapter
from mmalign.core.experience import Experience, Transitions
from mmalign.objectives.grpo import GRPO
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from mmalign.training.checks import check_start
from tests.adapters.asked import Rising, asked_of
from tests.loading.writers import WRITERS

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


def test_no_written_checkpoint_is_left_out() -> None:
    assert set(WRITERS) == set(NAMES)  # a family without a tiny checkpoint fails below, by its name


@pytest.mark.parametrize("name", NAMES)
def test_ratio_one_where_the_lora_adds_something(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = WRITERS[name](tmp_path / "model")
    adapter = loaded(name, folder)
    move(adapter)
    experience = check_on_policy(adapter, fresh=False)
    assert experience.ref is not None  # the base's: no longer the policy's
    assert (experience.ref.log_prob - experience.old.log_prob).abs().max() > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_run_from_a_lora_with_dropout_starts_at_its_reference(checkpointing: bool, tmp_path: Path) -> None:
    """peft's config of another program's adapter may name a dropout; nothing here may draw it."""
    with torch.random.fork_rng():
        folder = WRITERS["causal_lm"](tmp_path / "model")
    first = loaded("causal_lm", folder)
    move(first, 0.3)
    first.save(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_dropout": 0.5}))
    adapter = loaded("causal_lm", folder, start_lora=str(tmp_path / "lora"), gradient_checkpointing=checkpointing)
    dropped = [part for part in adapter.module.modules() if type(part) is torch.nn.Dropout and part.p == 0.5]
    assert dropped  # it is there
    experience = check_on_policy(adapter, fresh=True)
    assert experience.ref is not None
    assert torch.allclose(experience.ref.log_prob, experience.old.log_prob, atol=1e-5, rtol=1e-5)
    move(adapter)
    check_on_policy(adapter, fresh=False)
