"""Agreement without labels: votes by hand, statuses, and what a policy learns by it or must not."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.functional import majority_agreement, vote_share


def rollout_of(*rows: tuple[str, int, object]) -> Rollout:
    """Rows of (answer, group, what the group's wording is of)."""
    prompts = [Prompt(f"q{group}", meta={} if of is None else {"view_of": of}) for _, group, of in rows]
    return Rollout(prompts, [text for text, *_ in rows], torch.tensor([group for _, group, _ in rows]))


TWO = [*[(text, 0, 7) for text in ("5", "5.0", "6", "")], *[(text, 1, 7) for text in ("6", "6", "five", "5")]]


def test_the_partners_majority_by_hand() -> None:
    """q: 5, 5, 6, unreadable; q̃: 6, 6, five, 5. q̃'s majority is 6, q's is 5."""
    scores = Guarded("consensus", load_reward("consensus"), failed_share=1.0)(rollout_of(*TWO))
    assert scores.value.tolist() == [0, 0, 1, 0, 0, 0, 0, 1] and scores.status[3] == Status.PARSE_FAIL
    soft = load_reward("consensus", soft=True)(rollout_of(*TWO)).value
    assert soft.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 2, 0, 1 / 3, 1 / 3, 0, 2 / 3])
    own = load_reward("consensus", vote="own", soft=True)(rollout_of(*TWO)).value
    assert own[[0, 1, 2, 4]].tolist() == pytest.approx([1 / 2, 1 / 2, 0, 1 / 3])
    every = load_reward("consensus", vote="all", soft=True)(rollout_of(*TWO)).value
    assert every[0].item() == pytest.approx(2 / 6)


def test_rows_without_voters_have_no_score() -> None:
    rows = [("5", 0, 7), ("5", 0, 7), ("5", 1, 8), ("5", 2, None), ("5", 3, 9), ("", 4, 9)]
    scores = Guarded("consensus", load_reward("consensus"), failed_share=1.0)(rollout_of(*rows))
    none, bad = Status.NOT_APPLICABLE, Status.PARSE_FAIL
    assert scores.status.tolist() == [none, none, none, none, none, bad]
    assert "no other answer votes" in scores.info[0] and "no 'view_of'" in scores.info[3]
    alone = load_reward("consensus", vote="own")(rollout_of(*rows))
    assert alone.value[:2].tolist() == [1, 1] and alone.status[3] == none


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_votes_are_those_that_a_counter_counts(rows: list[tuple[int, int]]) -> None:
    answer, group = (torch.tensor(list(column)) for column in zip(*rows, strict=True))
    voters = (group[:, None] // 2 == group[None] // 2) & (group[:, None] != group[None])
    value, share = majority_agreement(answer, voters), vote_share(answer, voters)
    for row, (own, number) in enumerate(rows):
        votes = Counter(a for a, other in rows if a >= 0 and other // 2 == number // 2 and other != number)
        if not votes:
            assert value[row].isnan() and share[row].isnan()
            continue
        leading = [a for a, count in votes.items() if count == max(votes.values())]
        assert float(value[row]) == pytest.approx(float(Fraction(own in leading, len(leading))))
        assert float(share[row]) == pytest.approx(votes[own] / sum(votes.values()) if own >= 0 else 0.0)


def trained(views: Any, steps: int = 150) -> torch.Tensor:
    """P(right) in each of two wordings after group-relative steps on the partner's majority; answer 0 is right."""
    rng, logits = torch.Generator().manual_seed(0), torch.tensor(views, dtype=torch.float64).log()
    group = torch.arange(2).repeat_interleave(16)
    partner = group[:, None] != group[None]
    for _ in range(steps):
        chance = logits.softmax(1)
        answer = torch.multinomial(chance[group], 1, generator=rng)[:, 0]
        reward = majority_agreement(answer, partner).view(2, 16)
        advantage = ((reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)).flatten()
        slope = advantage[:, None] * (torch.nn.functional.one_hot(answer, 3) - chance[group])
        logits = logits + 0.5 * torch.stack([slope[group == view].mean(0) for view in (0, 1)])
    return logits.softmax(1)[:, 0]


def test_wordings_with_mistakes_of_their_own_teach_each_other_and_shared_ones_are_locked_in() -> None:
    """Where each wording has another second-best answer the right one wins; a mistake of both stays."""
    assert (trained([[0.50, 0.40, 0.10], [0.50, 0.10, 0.40]]) > 0.9).all()
    assert (trained([[0.30, 0.60, 0.10], [0.30, 0.60, 0.10]]) < 0.05).all()
