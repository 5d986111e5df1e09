"""A bonus by what the group shows: the mask by hand, the values, and what a policy learns by it."""

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Status
from mmalign.rewards import Mix, Slot, load_reward
from mmalign.rewards.combine import combinations
from mmalign.rewards.functional import group_contrast
from tests.rewards.doubles import scores

NAN = float("nan")


def made(**options):
    return combinations.build({"name": "group_contrast", "correct": "a", "behaviour": "b", **options}, "combine")


def test_the_mask_by_hand() -> None:
    """Group 0: 1 with, 0 without; group 1: 1/2 with, 1 without; group 2 has none without; group 3 is a draw."""
    correct = torch.tensor([1.0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1], dtype=torch.float64)
    shows = torch.tensor([1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 1, 0], dtype=torch.bool)
    group = torch.tensor([0, 0, 0, 0, 4, 4, 4, 4, 2, 2, 3, 3])
    assert group_contrast(correct, shows, group).tolist() == [1] * 4 + [-1] * 4 + [0] * 4
    assert group_contrast(correct, shows, group, eps=0.5).tolist() == [1] * 4 + [0] * 8
    valid = torch.ones(12, dtype=torch.bool)
    valid[5] = valid[7] = False  # no evidence without the behaviour is left
    assert group_contrast(correct, shows, group, valid)[4:8].tolist() == [0] * 4
    missing = correct.clone()
    missing[0] = NAN
    assert group_contrast(missing, shows, group)[:4].tolist() == [1] * 4
    assert group_contrast(correct[:0], shows[:0], group[:0]).shape == (0,)


def test_values_are_the_others_and_the_bonus() -> None:
    parts = {
        "a": scores([1, 1, 0, 0, 0, 1]),
        "b": scores([1, 0.6, 0, 0.4, 1, 0]),
        "c": scores([0.5, 0.5, 0.5, None, 0.5, 0.5]),
    }
    group = torch.tensor([0, 0, 0, 0, 1, 1])
    combined = made()(parts, {"a": 1.0, "b": 0.2, "c": 2.0}, group)
    assert combined.value.tolist() == pytest.approx([2.2, 2.2, 1.0, NAN, 0.8, 2.0], nan_ok=True)
    assert combined.status[3] != Status.OK
    assert made().bounds(dict.fromkeys("abc", (0.0, 1.0)), {"a": 1.0, "b": 0.2, "c": 2.0}) == (-0.2, 3.2)


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match="correct and behaviour must be two slots"):
        made(behaviour="a")
    slots = {"a": Slot(load_reward("exact_match")), "b": Slot(load_reward("format"), weight=0.0)}
    with pytest.raises(ConfigError) as caught:
        Mix(slots, made(at=2.0))
    assert "rewards.b.weight: 0 is the bonus" in str(caught.value) and "combine.at: 2 lies outside" in str(caught.value)
    with pytest.raises(ConfigError, match="'c' is no trained reward"):
        Mix({"a": Slot(load_reward("exact_match"))}, made(behaviour="c"))


def learned(bonus: str, steps: int = 60) -> tuple[float, float]:
    """P(behaviour) in a context where it makes right answers likelier (.8 against .5), and where the reverse is so.

    A policy of one logit a context, exact policy gradients of groups of 16; `bonus`: "none", "always" or "contrast".
    """
    rng, logits = torch.Generator().manual_seed(0), torch.zeros(2)
    right = torch.tensor([[0.5, 0.8], [0.8, 0.5]])  # context × behaviour
    combination = made()
    group = torch.arange(16).repeat_interleave(16)
    context = group % 2
    for _ in range(steps):
        chance = logits.sigmoid()[context]
        shows = torch.rand(256, generator=rng) < chance
        correct = (torch.rand(256, generator=rng) < right[context, shows.long()]).float()
        if bonus == "contrast":
            parts = {"a": scores(correct.tolist()), "b": scores(shows.float().tolist())}
            reward = combination(parts, {"a": 1.0, "b": 0.5}, group).value
        else:
            reward = correct + 0.5 * shows * (bonus == "always")
        table = reward.view(16, 16)
        advantage = ((table - table.mean(1, keepdim=True)) / (table.std(1, keepdim=True) + 1e-6)).flatten()
        slope = advantage * (shows.float() - chance)
        logits += 2.0 * torch.stack([slope[context == c].mean() for c in (0, 1)])
    return float(logits[0].sigmoid()), float(logits[1].sigmoid())


def test_it_teaches_a_behaviour_where_it_helps_and_unteaches_it_where_it_hurts() -> None:
    """A bonus for all learns the behaviour everywhere; without one it is slower either way."""
    helps, hurts = learned("contrast")
    always_helps, always_hurts = learned("always")
    plain_helps, plain_hurts = learned("none")
    assert helps > 0.95 and hurts < 0.05
    assert always_helps > 0.95 and always_hurts > 0.5
    assert helps > plain_helps and hurts < plain_hurts
