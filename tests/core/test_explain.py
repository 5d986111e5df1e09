"""Faults of options in plain words: what was found stays short, peers' words and near ones are known."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from mmalign.adapters import adapters
from mmalign.core.config import draft, load, parse
from mmalign.core.errors import ConfigError, DataError, shown
from mmalign.core.types import as_prompts
from mmalign.data import data_sources
from mmalign.objectives import objectives
from mmalign.policies import policies
from mmalign.rewards import rewards


@pytest.mark.parametrize(
    ("registry", "spec", "said"),
    [
        (policies, {"name": "flow", "steps": 8}, r"at\.steps: unknown option; here it is num_inference_steps\."),
        (objectives, {"name": "grpo", "global_std": True}, r"at\.global_std: unknown option; here it is std: global\."),
        (adapters, {"name": "sd", "model": "x", "lora": {"r": 4}}, r"at\.lora\.r: unknown option; here it is rank\."),
        (adapters, {"name": "sd", "model": "x", "lora": None}, r"at\.lora: must be a mapping of options \(got null, "),
        (
            data_sources,
            {"name": "prompts", "path": "x", "held_out_path": None},
            r"held_out_path: must be a text .*write '' for",
        ),
        (policies, {"name": "flow", "sde": "cpss"}, r"at\.sde: must be .* \(got 'cpss'\)\. Did you mean 'cps'\?"),
        (objectives, {"name": "grpo", "advantage_clip": "x"}, r"advantage_clip: must be a number or must be 'auto'"),
        (rewards, {"name": "sharpness", "channel_weights": [1, 2]}, r"at\.channel_weights"),
    ],
)
def test_faults_are_in_plain_words(registry: Any, spec: dict[str, Any], said: str) -> None:
    given = {"reward": None} if registry is objectives else {"adapter": None} if registry is policies else {}
    with pytest.raises(ConfigError, match=said) as caught:
        registry.build(spec, "at", **given)
    assert len(caught.value.faults) == 1 and "Input should" not in str(caught.value)


def test_no_value_is_printed_at_full_length() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep] * 9
    for value in ("x" * 10**6, list(range(20_000)), deep, {n: n for n in range(9999)}, 10**5000, [10**5000]):
        assert len(shown(value)) <= 300
    with pytest.raises(ConfigError) as caught:
        parse({"combine": deep, "adapter": list(range(20_000)), "rewards": {"a": "x" * 10**6}, "trainer": "y" * 10**6})
    assert len(str(caught.value)) < 3000


def test_judges_need_names_and_mappings() -> None:
    raw: dict[str, Any] = {k: {"name": "x"} for k in ("adapter", "policy", "objective", "data")}
    for judges in ({"truth": {"role": "verifier"}}, {"truth": {"name": 5}}, {"truth": {"name": ""}}):
        with pytest.raises(ConfigError, match=r"^evaluation\.judges\.truth: write a mapping with a `name`"):
            parse({**raw, "evaluation": {"judges": judges}})


def test_one_where_several_are_meant(tmp_path: Any) -> None:
    with pytest.raises(DataError, match=r"two stars.* where a list of them is meant; write \[prompt\]"):
        as_prompts("two stars")
    file = tmp_path / "run.yaml"
    file.write_text("trainer: {steps: 1}\n")
    with pytest.raises(ConfigError, match=r"changes: got 'trainer.steps=2' where a list is meant; write e\.g\. \["):
        load(file, "trainer.steps=2")
    with pytest.raises(ConfigError, match=r"changes: got \{'trainer': 1\} where a list is meant"):
        inspect.unwrap(load)(file, {"trainer": 1})
    with pytest.raises(ConfigError, match="name a run file by its path, or make one of the mapping"):
        inspect.unwrap(draft)({"trainer": {}})
