"""Comparisons in both orders: closed forms, what must not matter, and judges of real classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded
from mmalign.rewards.functional import win_rates
from mmalign.rewards.judges.pairwise import Comparisons
from mmalign.rewards.models.asking import Answers
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.doubles import Answering

NAN = float("nan")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_vlm(tmp_path_factory.mktemp("judge") / "llava", "llava", chat=True))


def made(checkpoint: str, **options: Any) -> Any:
    words = {"yes": "good", "no": "bad", "least_mass": 0.0}
    return mmalign.load_reward("pairwise", checkpoint=checkpoint, **{"judge": words, **options})


def strength(text: str) -> float:
    """What the judge of these tests likes: letters a."""
    return float(text.count("a"))


def liking(reward: Any, place: float = 0.0, least: int = 10**6) -> list[str]:
    """Let the judge compare by `strength`, `place` nats for what stands first; from `least` letters on it is silent."""
    asked: list[str] = []

    def judge(questions: list[Prompt]) -> Answers:
        asked.extend(question.text for question in questions)
        shown = [question.text.split("|")[1:3] for question in questions]
        long = [len(first) + len(second) >= least for first, second in shown]
        margins = [
            NAN if cut else strength(first) - strength(second) + place
            for (first, second), cut in zip(shown, long, strict=True)
        ]
        return Answers(torch.tensor(margins), torch.ones(len(long)), ["too long" if cut else "" for cut in long], long)

    reward.ask = Answering(judge)
    return asked


def written(*texts: str, group: list[int] | None = None) -> Rollout:
    numbers = torch.tensor(group or [0] * len(texts))
    return Rollout([Prompt(f"q{number}") for number in numbers.tolist()], list(texts), numbers)


QUESTION = "{principle}|{first}|{second}|"


# the arithmetic ----------------------------------------------------------------------------------------------------


def test_three_rows_by_hand() -> None:
    """s_01 = (1 - (-2)) / 2 = 1.5, s_02 = (0.5 - 0.5) / 2 = 0; the pair 1, 2 lacks an order."""
    margin = torch.tensor([1.0, -2.0, 0.5, 0.5, 3.0], dtype=torch.float64)
    first, second = torch.tensor([0, 1, 0, 2, 1]), torch.tensor([1, 0, 2, 0, 2])
    rates = win_rates(margin, first, second, 4, temperature=0.5)
    p = 1 / (1 + math.exp(-3.0))
    assert rates["probability"][:3].tolist() == pytest.approx([(p + 0.5) / 2, 1 - p, 0.5], abs=1e-12)
    assert rates["wins"][:3].tolist() == [0.75, 0.0, 0.5]
    assert rates["place"][:3].tolist() == pytest.approx([0.0, -0.5, 0.5], abs=1e-12)
    assert all(rate[3].isnan() for rate in rates.values())


def test_what_a_judge_adds_for_a_place_falls_out_exactly() -> None:
    likes = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked = Comparisons.within(range(6), [0] * 6, 0)
    fair = likes[asked.first] - likes[asked.second]
    for place in (0.0, 3.0, -8.0):
        rates = win_rates(fair + place, asked.first, asked.second, 6)
        want = (likes[:, None] - likes).sigmoid().fill_diagonal_(0).sum(1) / 5
        assert torch.allclose(rates["probability"], want, atol=1e-12)
        assert torch.allclose(rates["place"], torch.full_like(likes, place), atol=1e-12)


def test_who_is_compared_with_whom() -> None:
    every = Comparisons.within([0, 1, 2, 5], [0, 0, 0, 9, 9, 9], 0)
    pairs = list(zip(every.first.tolist(), every.second.tolist(), strict=True))
    assert sorted(pairs) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)], "row 5 has no rival"
    ring = Comparisons.within(range(8), [0] * 8, 2)
    assert all(len(ring.of(row)) == 8 for row in range(8)), "two before and two behind, in both orders"
    assert len(Comparisons.within(range(3), [0] * 3, 7).first) == 6


# the reward --------------------------------------------------------------------------------------------------------


def test_neither_places_nor_the_order_of_the_group_count(checkpoint: str) -> None:
    reward = made(checkpoint, question=QUESTION)
    texts = ["a", "aaa", "b", "aa", "aaaa", "b"]
    group = [0, 0, 0, 0, 7, 7]
    liking(reward)
    fair = reward(written(*texts, group=group)).value
    liking(reward, place=5.0)
    biased = reward(written(*texts, group=group))
    assert torch.allclose(biased.value, fair, atol=1e-6) and torch.allclose(biased.parts["place"], torch.tensor(5.0))
    order = [2, 5, 0, 3, 4, 1]
    turned = reward(written(*[texts[i] for i in order], group=[group[i] for i in order])).value
    assert torch.allclose(turned, fair[order], atol=1e-6)
    assert fair[:4].argsort().tolist() == [2, 0, 3, 1] and fair[4] > fair[5]
    hard = made(checkpoint, question=QUESTION, reading="wins")
    liking(hard)
    assert hard(written(*texts, group=group)).value.tolist() == pytest.approx([1 / 3, 1, 0, 2 / 3, 1, 0])


def test_the_principle_is_in_words_or_in_a_column(checkpoint: str) -> None:
    reward = made(checkpoint, principle="Prefer {virtue}.")
    asked = liking(reward)
    prompts = [Prompt("q", meta={"virtue": "brevity"})] * 2
    reward.question = QUESTION
    reward(Rollout(prompts, ["a", "b"], torch.zeros(2, dtype=torch.long)))
    assert asked == ["Prefer brevity.|a|b|", "Prefer brevity.|b|a|"] and reward.needs == ("virtue",)
    own = made(checkpoint, principle="{principle}")
    assert own.needs == ("principle",) and made(checkpoint).needs == ()
    assert made(checkpoint, question="{first} {second} {taste}").needs == ("taste",)


def test_statuses(checkpoint: str) -> None:
    reward = Guarded("pairwise", made(checkpoint, question=QUESTION), failed_share=1.0)
    liking(reward.reward, least=8)
    texts = ["a", " ", "aa", "a" * 9, "alone", "aaaa", "aaaaa"]
    scores = reward(written(*texts, group=[0, 0, 0, 0, 1, 2, 2]))
    assert scores.status.tolist() == [
        Status.OK,
        Status.PARSE_FAIL,  # it is empty
        Status.OK,
        Status.PARSE_FAIL,  # it is too long beside any
        Status.NOT_APPLICABLE,  # it has no rival
        Status.ERROR,  # its rival is too long
        Status.PARSE_FAIL,
    ]
    assert scores.value[[1, 3, 6]].tolist() == [0, 0, 0] and "no other output" in scores.info[4]
    assert scores.value[0] < 0.5 < scores.value[2]


def test_a_real_judge_sees_both_pictures(checkpoint: str) -> None:
    reward = made(checkpoint, question="say {prompt} {principle}", principle="red")
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    scores = reward(Rollout([Prompt("a")] * 3, pictures, torch.zeros(3, dtype=torch.long)))

    def margin(i: int, j: int) -> float:
        return float(reward.ask([Prompt("say a red", {"first": pictures[i], "second": pictures[j]})]).margin)

    want = [
        sum(1 / (1 + math.exp(-(margin(i, j) - margin(j, i)) / 2)) for j in range(3) if j != i) / 2 for i in range(3)
    ]
    assert scores.value.tolist() == pytest.approx(want, abs=1e-5)
    assert (scores.value - 0.5).abs().max() > 1e-4, "the judge sees which is which"


def test_faults_are_told(checkpoint: str) -> None:
    assert mmalign.load_reward("pairwise", checkpoint=checkpoint).judge.yes == "first"
    with pytest.raises(ConfigError, match="principle: says nothing"):
        made(checkpoint, principle=" ")
    with pytest.raises(ConfigError, match=r"names \{first\} and no \{second\}"):
        made(checkpoint, question="{first}?")
    with pytest.raises(CapabilityError, match=r"shows the judge neither text"):
        made(checkpoint, question="{prompt}?")(written("a", "b"))
    with pytest.raises(CapabilityError, match=r"which are shown to the judge; leave them out"):
        picture = torch.rand(2, 3, 16, 16)
        made(checkpoint, question=QUESTION)(Rollout([Prompt("q")] * 2, picture, torch.zeros(2, dtype=torch.long)))
