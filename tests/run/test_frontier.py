"""A run against the best policies of its KL: one word long, everything has a closed form over the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mmalign
from mmalign.cli.main import application
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt
from mmalign.run.frontier import frontier
from tests.run.text_runs import GRPO, RULES

WORDS = ["a", "b", "c", "d", "e", "f", "red", "cube", "two", "dogs"]


@pytest.fixture
def run(tmp_path: Path, lm_folder: Callable[..., Path]) -> Path:
    """A short run whose outputs are one token."""
    (tmp_path / "prompts.txt").write_text("".join(f"{one} {two}\n" for one in WORDS[:4] for two in WORDS[4:]))
    file = tmp_path / "run.yaml"
    file.write_text(GRPO.format(model=lm_folder("llama")))
    changes = ["policy.max_new_tokens=1", "trainer.steps=6"]
    mmalign.train(file, changes, out=tmp_path / "run", allow=RULES)
    return tmp_path / "run"


def exact(run: Path, prompts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p of the run and of its start over the vocabulary, and the reward of every word: (B, V), (B, V), (V,)."""
    opened: Any = mmalign.load_run(run, allow=RULES)
    policy, asked = opened.parts.policy, [Prompt(text) for text in prompts]
    some = policy.sample(asked, torch.Generator())
    with torch.no_grad():
        after = policy.step_logits(some)[:, 0].double().softmax(-1)
        with policy.reference():
            before = policy.step_logits(some)[:, 0].double().softmax(-1)
    tokens = torch.arange(after.shape[1])[:, None]
    texts = policy.adapter.decode(tokens, torch.ones_like(tokens, dtype=torch.bool))
    reward = np.array([float(text.split().count("good")) for text in texts])
    return after.numpy(), before.numpy(), reward


def test_kl_reward_and_the_best_policy_are_those_of_the_vocabulary(run: Path) -> None:
    found = frontier(run, samples=256, prompts=8, allow=RULES)
    items: list[Any] = list(mmalign.load_run(run, allow=RULES).parts.source.held_out_items())
    asked = [item.text for item in items[:8]]
    after, before, reward = exact(run, asked)
    kl = float((after * np.log(after / before)).sum(1).mean())
    assert kl > 0.05 and found.prompts == 8
    assert found.kl.value == pytest.approx(kl, rel=0.25) and found.kl.low < kl < found.kl.high
    assert found.value.value == pytest.approx((after @ reward).mean(), abs=0.06)
    assert found.start.value == pytest.approx((before @ reward).mean(), abs=0.02)
    right = before @ reward  # P(good): the best of n is right unless all n are wrong
    for point in found.curve[:4]:
        assert point.value == pytest.approx((1 - (1 - right) ** point.n).mean(), abs=0.06)
    assert all(point.value <= point.tilted + 1e-6 for point in found.curve)
    assert found.value.value <= found.tilted + 0.06 and 0 < found.efficiency < 1.2


def test_the_start_lies_at_nothing_and_a_judge_can_be_told(run: Path) -> None:
    result = CliRunner().invoke(
        application(),
        ["frontier", f"{run}", "--samples", "8", "--prompts", "4", "--measure", "brief", "--json", "--allow", RULES[0]],
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout[result.stdout.index("{") :])
    assert told["measure"] == "brief" and [point["n"] for point in told["curve"]] == [1, 2, 4, 8]
    assert told["start"]["value"] == pytest.approx(told["curve"][0]["value"])
    assert frontier(run, 8, 4, measure="brief", allow=RULES).kl.value == told["kl"]["value"]


def test_what_has_no_frontier_is_refused(run: Path, run_file: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'goood' is no reward of this run\. Did you mean 'good'"):
        frontier(run, reward="goood", allow=RULES)
    with pytest.raises(ConfigError, match=r"policy.top_p: draws from another distribution .* give policy.top_p=1"):
        frontier(run, changes=["policy.top_p=0.5"], allow=RULES)
    with pytest.raises(ConfigError, match=r"no run\.yaml in it"):
        frontier(tmp_path / "nowhere")
    with pytest.raises(CapabilityError, match=r"--reward names one: good, brief"):
        frontier(run, changes=["combine={name: rank}"], allow=RULES)


def test_of_pictures_the_kl_is_of_the_steps(run_file: Callable[..., Path], tmp_path: Path) -> None:
    mmalign.train(run_file(), ["trainer.steps=2"], out=tmp_path / "pictures")
    found = frontier(tmp_path / "pictures", samples=4, prompts=2, reward="crisp")
    assert found.kl.n == 2 and np.isfinite(found.kl.value) and len(found.curve) == 3
