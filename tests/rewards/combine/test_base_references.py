"""References of each prompt by the policy's start: the quantile, the values, the state, and a run that is resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Calibrated
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.rewards.combine import combinations
from mmalign.rewards.combine._base_references import quantile_reference
from tests.rewards.doubles import scores


def mix(**options: object) -> Mix:
    combination = combinations.build({"name": "log_sigmoid", "references": "base", **options}, "combine")
    words = {"long": Slot(load_reward("length", low=8.0)), "short": Slot(load_reward("length", high=2.0, fall=8.0))}
    return Mix(words, combination)


def rollout_of(prompt: Prompt, *texts: str) -> Rollout:
    return Rollout([prompt] * len(texts), list(texts), torch.zeros(len(texts), dtype=torch.long))


def test_the_reference_is_the_quantile_of_the_values_that_there_are() -> None:
    values = [0.3, 0.1, 0.9, None, 0.4]
    want = float(np.quantile(np.array([0.3, 0.1, 0.9, 0.4], dtype=np.float32).astype(np.float64), 0.85))
    assert quantile_reference(scores(values), 0.85) == pytest.approx(want, abs=1e-12)
    assert math.isnan(quantile_reference(scores([None, None]), 0.85))


def test_each_prompt_is_measured_against_its_own_start() -> None:
    """Σ w log σ((v - ref(x)) / τ) with ref(x) the largest value of the start on x (quantile 1)."""
    made = mix(quantile=1.0, samples=2, temperatures={"short": 0.5})
    easy, hard = Prompt("a"), Prompt("b")
    assert isinstance(made, Calibrated) and made.samples == 2 and made.uncalibrated([easy, hard, easy]) == [easy, hard]
    made.calibrate(rollout_of(easy, "one", "one two"))
    made.calibrate(rollout_of(hard, "one two three four", "one"))
    assert made.uncalibrated([easy, Prompt("a", meta={"x": 1}), hard]) == [Prompt("a", meta={"x": 1})]
    assert not any(key.startswith("reward/") for key in made.metrics()), "the start's outputs are in no metric"
    rollout = Rollout([easy, hard], ["one two three"] * 2, torch.arange(2))
    value = made(rollout).value

    def logsig(x: float) -> float:
        return -math.log1p(math.exp(-x))

    long, short = 3 / 8, 7 / 8
    want = [logsig(long - 2 / 8) + logsig((short - 1) / 0.5), logsig(long - 4 / 8) + logsig((short - 1) / 0.5)]
    assert value.tolist() == pytest.approx(want, abs=1e-6)
    again = mix(quantile=1.0, samples=2, temperatures={"short": 0.5})
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(rollout).value, value) and again.uncalibrated([easy, hard]) == []
    unknown = made(Rollout([Prompt("c")], ["one"], torch.zeros(1, dtype=torch.long)))
    assert unknown.status.tolist() == [Status.NOT_APPLICABLE]
    assert mix().state_dict() == {}


def test_references_that_all_share_draw_nothing() -> None:
    shared = Mix({"a": Slot(load_reward("length"))}, combinations.build({"name": "log_sigmoid"}, "combine"))
    assert shared.samples == 0 and shared.uncalibrated([Prompt("a")]) == []
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "scale": ({"references": "base", "scale": "group_z"}, "set scale: raw"),
        "temperature": ({"temperatures": {"a": 0.0}}, r"temperatures\.a must be above 0"),
        "number": ({"references": {"a": math.inf}}, r"references\.a: must be a finite number"),
    }
    for options, fault in faults.values():
        with pytest.raises(ConfigError, match=fault):
            combinations.build({"name": "log_sigmoid", **options}, "combine")


def test_a_resumed_run_goes_on_exactly(tmp_path: Path) -> None:
    """Four steps of GRPO, and the last two again from the checkpoint between them: the same weights and references."""
    data, run = tmp_path / "rows.jsonl", tmp_path / "run.yaml"
    data.write_text("".join(json.dumps({"prompt": f"{n} discs"}) + "\n" for n in ("two", "three", "four", "five")))
    run.write_text(
        "adapter: {name: causal_lm, model: assets/scenes_rewriter, train: lora, device: cpu}\n"
        "policy: {name: tokens, max_new_tokens: 6}\n"
        "rewards: {long: {name: length, low: 6}, fresh: {name: length, high: 3, fall: 4}}\n"
        "combine: {name: log_sigmoid, references: base, samples: 4, temperatures: {long: 0.2, fresh: 0.2}}\n"
        f"objective: {{name: grpo, group_size: 4}}\ndata: {{name: prompts, path: {data}}}\n"
        "trainer: {steps: 4, prompts_per_step: 2, lr: 1.0e-3, save_every: 2}\nevaluation: {count: 0}\n"
    )
    mmalign.train(run, out=tmp_path / "run")
    weights = mmalign.load_run(tmp_path / "run").parts.adapter.trainable()
    whole = {name: weight.detach().clone() for name, weight in weights.items()}
    state = json.loads(next((tmp_path / "run/checkpoints").glob("*4/state/state.json")).read_text())
    mmalign.train(tmp_path / "run/run.yaml", resume=f"{tmp_path / 'run'}@2")
    again = mmalign.load_run(tmp_path / "run").parts.adapter.trainable()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    resumed = json.loads(next((tmp_path / "run/checkpoints").glob("*4/state/state.json")).read_text())
    assert resumed["stateful"]["reward"] == state["stateful"]["reward"] != {}
