"""Follow-up likelihood: what it is by plain transformers, of texts, pictures and sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mmalign
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout
from tests.adapters.language.tiny_alm import write_tiny_alm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.every_reward import scenes
from tests.rewards.sounds import tones

PROMPTS, TEXTS = [Prompt("a red"), Prompt("two")], ["circle", "a blue square"]


def test_it_is_what_transformers_says(lm_folder: Callable[..., Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = lm_folder("llama")
    reward = mmalign.load_reward("follow_up", checkpoint=str(folder), good=["good", "red circle"], bad=["bad"], rows=1)
    words, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()

    def mean(prompt: str, output: str, said: str) -> float:
        start = words(f"{prompt} {output}")["input_ids"]
        tokens = reward.reader.read([Prompt("")], [said]).trajectory["tokens"][0].tolist()
        logits = model(input_ids=torch.tensor([[*start, *tokens]])).logits[0].detach().log_softmax(-1)
        return sum(float(logits[len(start) - 1 + i, t]) for i, t in enumerate(tokens)) / len(tokens)

    result = reward(Rollout.of(PROMPTS, TEXTS))
    for row, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        good = (mean(prompt.text, text, "good") + mean(prompt.text, text, "red circle")) / 2
        bad = mean(prompt.text, text, "bad")
        assert float(result.value[row]) == pytest.approx(good - bad, abs=1e-5)
        assert float(result.parts["good"][row]) == pytest.approx(good, abs=1e-5)
        assert float(result.parts["bad"][row]) == pytest.approx(bad, abs=1e-5)
    only = mmalign.load_reward("follow_up", checkpoint=str(folder), good=["good", "red circle"])
    torch.testing.assert_close(only(Rollout.of(PROMPTS, TEXTS)).value, result.parts["good"])


def test_pictures_and_sounds_are_shown(tmp_path: Path) -> None:
    pictures, sounds = scenes(1), tones(3, seconds=0.7)
    eyes = {"adapter": {"name": "image_text", "model": str(write_tiny_vlm(tmp_path / "eyes", "llava"))}}
    ears = {"adapter": {"name": "audio_text", "model": str(write_tiny_alm(tmp_path / "ears"))}}
    for spec, rollout in ((eyes, pictures), (ears, sounds)):
        reward = mmalign.load_reward(
            "follow_up", checkpoint={**spec, "policy": {"name": "tokens"}}, good=["good"], bad=["bad"]
        )
        value = reward(rollout).value
        assert value.isfinite().all() and len(value.unique()) == 3
        torch.testing.assert_close(reward(rollout[torch.tensor([2, 0])]).value, value[[2, 0]], atol=1e-4, rtol=1e-4)


def test_what_shows_nothing_is_refused(lm_folder: Callable[..., Path]) -> None:
    folder = str(lm_folder("llama"))
    with pytest.raises(ConfigError) as faults:
        mmalign.load_reward("follow_up", checkpoint=folder, good=[], bad=["", "bad"])
    assert "good: is empty" in str(faults.value) and "bad: holds an empty follow-up" in str(faults.value)
    with pytest.raises(ConfigError, match="'good' is among the good follow-ups, too"):
        mmalign.load_reward("follow_up", checkpoint=folder, good=["good"], bad=["good"])
    blind = mmalign.load_reward("follow_up", checkpoint=folder, good=["good"], context="{prompt} and {colour}")
    assert blind.needs == ("colour",)
    with pytest.raises(CapabilityError, match="context: shows none of the text"):
        blind(Rollout.of(PROMPTS, TEXTS))
