"""Relevance against a text encoder's own embeddings, and R³ as a whole: what copying, length and repetition come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.rewards.combine import combinations
from tests.rewards.asking import scored
from tests.rewards.doubles import text_encoder


def test_it_is_the_cosine_to_the_prompt_or_to_the_best_reference(tiny_clip: Path) -> None:
    embed = text_encoder(str(tiny_clip)).texts
    rows = [("a red circle", {"answer": ["a star", "a red circle"]}), ("two blue squares", {"answer": "a star"})]
    near = scored("relevance", *rows, encoder=str(tiny_clip))
    texts, asked = embed(["a red circle", "two blue squares"]), embed(["question 0", "question 1"])
    assert near.value.tolist() == pytest.approx((texts * asked).sum(1).clamp(-1, 1).tolist(), abs=1e-5)
    right = scored("relevance", *rows, encoder=str(tiny_clip), column="answer")
    assert right.value[0].item() == pytest.approx(1.0, abs=1e-5)
    assert right.value[1].item() == pytest.approx(float(texts[1] @ embed(["a star"])[0]), abs=1e-5)


def test_statuses(tiny_clip: Path) -> None:
    reward = load_reward("relevance", encoder=str(tiny_clip))
    rollout = Rollout([Prompt("q"), Prompt(" "), Prompt("q")], ["a star", "a star", ""], torch.arange(3))
    assert reward(rollout).status.tolist() == [Status.OK, Status.NOT_APPLICABLE, Status.PARSE_FAIL]
    named = scored("relevance", ("a", {}), ("a", {"answer": "b"}), encoder=str(tiny_clip), column="answer")
    assert named.status.tolist() == [Status.NOT_APPLICABLE, Status.OK]
    with pytest.raises(ConfigError, match="embeds no texts"):
        load_reward("relevance", encoder={"name": "spectral"})
    with pytest.raises(ConfigError, match="encoder: missing"):
        load_reward("relevance")


def test_the_product_of_the_paper_punishes_each_hack(tiny_clip: Path) -> None:
    """R = r_x · LI · RP (2402.03469): an answer of one word and one that repeats itself fall to (almost) nothing."""
    slots = {
        "near": Slot(load_reward("relevance", encoder=str(tiny_clip)), map=(-1.0, 1.0)),
        "length": Slot(load_reward("length", low=8.0, high=1000.0)),
        "fresh": Slot(load_reward("repetition"), map=(-1.0, 0.0)),
    }
    mix = Mix(slots, combinations.build({"name": "product"}, "combine"))
    good, short, again = "one red circle and two blue stars above it", "a", "a red circle " * 20
    scores = mix(Rollout([Prompt("draw a red circle")] * 3, [good, short, again], torch.zeros(3, dtype=torch.long)))
    parts = {name: scores.parts[name] for name in slots}
    assert torch.allclose(scores.value, parts["near"] * parts["length"] * parts["fresh"], atol=1e-6)
    assert parts["fresh"][0] == 1 and parts["fresh"][2] < 0.1 and scores.value[0] > 5 * scores.value[2]
    assert scores.value[0] > 2 * scores.value[1]
