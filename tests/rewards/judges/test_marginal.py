"""A reward over contexts: the mean by hand, its weights, groups, and contexts that have no value."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward, rule


@rule(modalities={"text"}, range=(0.0, 1.0))
def likes(prompt: Prompt, output: str) -> float | None:
    """The share of the output's letters that the first word of the prompt names; it has no opinion on "none"."""
    word = prompt.text.split()[0]
    return None if word == "none" else output.count(word) / len(output)


Likes: Any = likes


def made(**options: Any) -> Any:
    reward = load_reward("marginal", inner={"name": "length"}, **options)
    reward._inner = Guarded("inner", Likes(), monitor=True)
    return reward


def rows(*metas: dict[str, Any], text: str = "aab") -> Rollout:
    return Rollout([Prompt("q", meta=meta) for meta in metas], [text] * len(metas), torch.arange(len(metas)))


def test_the_mean_over_contexts_by_hand() -> None:
    scores = made()(rows({"contexts": ["a", "b"]}, {"contexts": {"a": 3, "b": 1}}, {"contexts": "b"}))
    assert scores.value.tolist() == pytest.approx([1 / 2, (3 * 2 / 3 + 1 / 3) / 4, 1 / 3])
    assert scores.parts["spread"].tolist() == pytest.approx([1 / 6, (3 / 16) ** 0.5 / 3, 0], abs=1e-6)
    both = made(contexts=["b", "c"])(rows({"contexts": "a"}, {}))
    assert both.value.tolist() == pytest.approx([(2 / 3 + 1 / 3) / 3, 1 / 6])
    assert made().needs == ("contexts",) and made(contexts=["a"]).needs == ()
    assert made(contexts=["a"], template="{context} of {place} {prompt}").needs == ("place",)


def test_contexts_without_a_value_are_left_out() -> None:
    reward = Guarded("marginal", made(), failed_share=1.0)
    scores = reward(rows({"contexts": ["none", "a"]}, {"contexts": ["none"]}, {"contexts": []}, {"contexts": [3]}, {}))
    wanted = [Status.OK, Status.NOT_APPLICABLE, Status.ERROR, Status.ERROR, Status.NOT_APPLICABLE]
    assert scores.status.tolist() == wanted
    assert scores.value[0].item() == pytest.approx(2 / 3)
    assert "holds no context" in scores.info[2] and "is a list of texts" in scores.info[3]


def test_a_preference_that_contexts_turn_round_is_no_preference_between_them() -> None:
    """With the context each of two outputs wins once; without, the mean of both is a draw."""
    prompts = [Prompt("q", meta={"contexts": ["a", "b"]})] * 2
    scores = made()(Rollout(prompts, ["aaab", "abbb"], torch.zeros(2, dtype=torch.long)))
    assert scores.value[0] == scores.value[1]
    prompts = [Prompt("q", meta={"contexts": "a"})] * 2
    decided = made()(Rollout(prompts, ["aaab", "abbb"], torch.zeros(2, dtype=torch.long)))
    assert decided.value[0] > decided.value[1]


def test_groups_stay_whole_in_every_context() -> None:
    reward = load_reward("marginal", inner={"name": "consensus", "vote": "own"}, contexts=["x", "y"])
    assert reward.batch_dependent
    rollout = Rollout([Prompt("q")] * 3, ["5", "5", "6"], torch.zeros(3, dtype=torch.long))
    assert reward(rollout).value.tolist() == load_reward("consensus", vote="own")(rollout).value.tolist()


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"template: .* name \{context\}"):
        load_reward("marginal", inner={"name": "length"}, template="{prompt}")
    with pytest.raises(ConfigError, match="'vendi' judges sets"):
        load_reward("marginal", inner={"name": "vendi", "encoder": {"name": "spectral"}})
