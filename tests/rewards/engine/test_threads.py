"""Rewards over models in eight threads at once: every value is what one thread gives, and nothing shared is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import load_reward
from mmalign.rewards.models.clip_towers import Source, load_towers
from mmalign.rewards.models.texts import KeptTexts
from tests.rewards.every_reward import judged, value_of

MODELS = (
    "aesthetic",
    "align_evaluator",
    "bmas",
    "clap",
    "clip",
    "clip_r_precision",
    "clip_s",
    "contrastive",
    "fad",
    "frechet",
    "grammar",
    "kad",
    "mlp_head",
    "mmd",
    "ref_clip_score",
    "reward_model",
    "song_fad",
    "through",
    "vendi",
    "yes_no",
)


def in_threads(call: Callable[[int], Any], calls: int, threads: int = 8) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, range(calls)))


def written(pictured: bool) -> Rollout:
    """Six texts, about pictures or not, with what is right and what is wrong of them."""
    answers = [
        "a red circle",
        "two blue star",
        "three green square",
        "a star left of a circle",
        "red",
        "blue and green",
    ]
    pictures = torch.rand(6, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    columns = {"references": ["a red circle", "a blue star"], "answer": "a red circle"}
    media = [{"image": picture} if pictured else {} for picture in pictures]
    prompts = [Prompt(f"describe {i}", media=shown, meta=columns) for i, shown in enumerate(media)]
    return Rollout(prompts, answers, torch.arange(6))


@pytest.mark.parametrize("name", MODELS)
def test_eight_threads_give_what_one_gives(name: str, make: Callable[[str], Any]) -> None:
    reward = make(name)
    rollout = judged(reward) if reward.modalities & {"image", "audio"} else written(name != "reward_model")
    parts = [rollout[torch.tensor(rows)] for rows in ([0, 1, 2, 3, 4, 5], [5, 4, 3], [2, 0, 1], [3, 1, 5, 0])]
    want = [value_of(reward, part) for part in parts]
    fresh = make(name)
    value_of(fresh, parts[1])  # its model is loaded
    if hasattr(fresh, "towers"):
        fresh.towers = replace(fresh.towers)  # the same model, with an empty memory of texts
    values = in_threads(lambda call: value_of(fresh, parts[call % 4]), 24)
    for call, value in enumerate(values):
        torch.testing.assert_close(value, want[call % 4], atol=1e-6, rtol=0, equal_nan=True)
    again = value_of(fresh, parts[0])
    torch.testing.assert_close(again, value_of(reward, parts[0]), atol=0, rtol=0, equal_nan=True)  # and stays so


def test_a_head_on_the_text_tower_and_the_tower_itself_are_asked_at_once(tiny_clip: Path, grammar_head: Path) -> None:
    """Features before the projection once were made by taking the projection out of the shared model."""
    picture = torch.rand(3, 40, 32, generator=torch.Generator().manual_seed(1))
    words = ["a red circle", "two blue star", "three green square", "a star left of a circle", "red", "blue and green"]
    prompts = [Prompt("d", media={"image": picture}, meta={"references": words[:2]})] * len(words)
    rollout = Rollout(prompts, words, torch.arange(len(words)))
    rewards = [
        load_reward("clip_s", checkpoint=str(tiny_clip), head=str(grammar_head), prefix=""),
        load_reward("clip_s", checkpoint=str(tiny_clip), clipped=False),
        load_reward("ref_clip_score", checkpoint=str(tiny_clip)),
        load_reward("grammar", checkpoint=str(tiny_clip), head=str(grammar_head)),
    ]
    want = [reward(rollout).value for reward in rewards]
    for _ in range(5):
        towers = replace(load_towers(Source(str(tiny_clip))))
        for reward in rewards:
            reward.towers = towers
        values = in_threads(lambda call: rewards[call % 4](rollout).value, 40)
        assert all(torch.equal(value, want[call % 4]) for call, value in enumerate(values))
    assert towers.module.text_projection is not None


def test_a_memory_that_forgets_answers_every_thread() -> None:
    encoded: list[str] = []

    def encode(texts: list[str], device: torch.device) -> torch.Tensor:
        encoded.extend(texts)
        return torch.tensor([[float(int(text)), 1.0] for text in texts])

    memory = KeptTexts(encode, most=64)

    def agrees(call: int) -> bool:
        numbers = torch.randperm(300, generator=torch.Generator().manual_seed(call))[:200].tolist()
        rows = memory([str(number) for number in numbers])
        return torch.allclose(rows[:, 0] / rows[:, 1], torch.tensor(numbers).float(), rtol=1e-4)

    assert all(in_threads(agrees, 64))
    encoded.clear()
    memory([str(number) for number in range(300)])
    assert len(encoded) == 300 - 64


def text_features(make_towers: Callable[[], Any], texts: Sequence[str]) -> torch.Tensor:
    return replace(make_towers()).texts(texts)  # the same model, with an empty memory


@pytest.mark.parametrize("which", ["clip", "transformers_clip", "clap"])
def test_features_of_a_text_are_the_same_bits_in_any_company(which: str, request: pytest.FixtureRequest) -> None:
    from mmalign.rewards.models.clap_towers import ClapSource, load_clap

    folder = str(request.getfixturevalue(f"tiny_{which}"))
    towers = (lambda: load_clap(ClapSource(folder))) if which == "clap" else (lambda: load_towers(Source(folder)))
    words = ["red", "blue", "green", "circle", "square", "star", "two", "three", "and", "of", "left", "right", "above"]
    texts = [" ".join(words[i : i + 1 + i % 5]) for i in range(13)] + [f"a {word} of a star" for word in words]
    whole = dict(zip(texts, text_features(towers, texts), strict=True))
    rng = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 7, 8, 9, 20):
        some = [texts[i] for i in torch.randperm(len(texts), generator=rng)[:size]]
        assert all(torch.equal(row, whole[text]) for text, row in zip(some, text_features(towers, some), strict=True))
