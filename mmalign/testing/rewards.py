"""What every reward and every set reward owes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmalign.core.protocols import Reward, SetReward
from mmalign.core.types import Audio, Output, Rollout, Scores, Status
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.testing.faults import Faults, has_members, random_state_kept

_CLOSE = 1e-5  # of float32 arithmetic in batches of other sizes


def check_reward(reward: Any, rollout: Rollout) -> None:
    """Try `reward` on the rows of `rollout`, at least two of its modality, with the columns and media that it reads.

    Checked: the members of `Reward`; one value per row within `range`, NaN exactly where the status carries none; the
    outputs and the global random numbers left alone; a row's score the same alone, in another order and again (unless
    the reward says by `batch_dependent` that it compares rows, or by `deterministic = False` that it varies); gradient
    to the outputs exactly where `differentiable` says so.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(reward).__name__)
    if has_members(faults, reward, Reward) and _judges(faults, reward, rollout):
        low, high = reward.range
        faults.require(low < high, f"range {reward.range} is empty; give (lowest, highest)")
        with faults.stage("scoring"):
            _check_scores(faults, reward, rollout)
        with faults.stage("scoring with gradient"):
            _check_gradient(faults, reward, rollout, lambda: reward(rollout).value)
    faults.report()


def check_set_reward(reward: Any, rollout: Rollout) -> None:
    """Try `reward` on the set of all rows of `rollout`, at least four.

    Checked: the members of `SetReward`; one embedding per row, the same whatever rows are beside it; a score without
    gradient that does not depend on the order; the outputs and the global random numbers left alone; influence
    (`credit`) with one value per row and mean 0, which follows its row in another order; gradient exactly where
    `differentiable` says so.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(reward).__name__)
    if has_members(faults, reward, SetReward) and _judges(faults, reward, rollout):
        with faults.stage("scoring"):
            _check_set(faults, reward, rollout)
        with faults.stage("scoring with gradient"):
            _check_gradient(faults, reward, rollout, lambda: reward.score(reward.embed(rollout)))
    faults.report()


def _judges(faults: Faults, reward: Reward | SetReward, rollout: Rollout) -> bool:
    known = {"text", "image", "audio"}
    faults.require(
        bool(reward.modalities) and set(reward.modalities) <= known,
        f"modalities {sorted(reward.modalities)} must be some of {sorted(known)}",
    )
    output = rollout.output
    modality = "audio" if isinstance(output, Audio) else "image" if isinstance(output, Tensor) else "text"
    return faults.require(
        modality in reward.modalities,
        f"judges {', '.join(sorted(reward.modalities))} and is tried on outputs of {modality}",
    )


def _check_scores(faults: Faults, reward: Reward, rollout: Rollout) -> None:
    before = content(rollout.output)
    with random_state_kept(faults):
        scores = reward(rollout)
    faults.require(equal_content(before, content(rollout.output)), "changes the outputs that it is shown")
    rows = len(rollout.prompts)
    if not faults.require(isinstance(scores, Scores), f"returns {type(scores).__name__}; return Scores"):
        return
    if not faults.require(
        scores.value.shape == (rows,) and scores.status.shape == (rows,),
        f"returns value {tuple(scores.value.shape)} and status {tuple(scores.status.shape)} for {rows} rows",
    ):
        return
    value, valid = scores.value.detach(), scores.valid
    faults.require((value.isfinite() == valid).all(), "a value is finite exactly where its status is ok or parse_fail")
    low, high = reward.range
    inside = (value[valid] >= low) & (value[valid] <= high)
    faults.require(inside.all(), f"a value leaves the range {reward.range}: {value[valid][~inside].tolist()}")
    faults.require(
        (value[scores.status == Status.PARSE_FAIL] == low).all(), "a parse_fail has the lowest value of the range"
    )
    if getattr(reward, "deterministic", True):
        again = reward(rollout).value.detach()
        faults.require(torch.equal(again.nan_to_num(), value.nan_to_num()), "scores the same rows otherwise again")
        if not RewardTraits.of(reward).batch_dependent:
            _check_rows_alone(faults, reward, rollout, value)


def _check_rows_alone(faults: Faults, reward: Reward, rollout: Rollout, value: Tensor) -> None:
    alone = torch.cat([reward(rollout[i : i + 1]).value.detach() for i in range(len(value))])
    faults.require(
        torch.allclose(alone, value, atol=_CLOSE, equal_nan=True),
        f"a row's score depends on the rows beside it: {value.tolist()} together, {alone.tolist()} alone",
    )
    order = _interleaved(len(value))
    turned = reward(rollout[order]).value.detach()
    faults.require(
        torch.allclose(turned, value[order], atol=_CLOSE, equal_nan=True), "another order of rows gives other scores"
    )


def _check_set(faults: Faults, reward: SetReward, rollout: Rollout) -> None:
    before, rows = content(rollout.output), len(rollout.prompts)
    with random_state_kept(faults):
        embedding = reward.embed(rollout)
    faults.require(equal_content(before, content(rollout.output)), "changes the outputs that it is shown")
    if not faults.require(
        embedding.ndim == 2 and len(embedding) == rows,
        f"embeds {rows} rows as {tuple(embedding.shape)}; one vector per row (B, D) is meant",
    ):
        return
    half = rows // 2
    parts = torch.cat([reward.embed(rollout[:half]), reward.embed(rollout[half:])])
    faults.require(torch.allclose(embedding, parts, atol=_CLOSE), "an embedding depends on the rows beside it")
    score = reward.score(embedding)
    faults.require(score.ndim == 0 and bool(score.isfinite()), f"the score of a set is one number, not {score}")
    faults.require(
        torch.allclose(score, reward.score(embedding.flip(0)), rtol=1e-5, atol=1e-6), "the score depends on the order"
    )
    influence = reward.credit(embedding)
    if faults.require(influence.shape == (rows,), f"credit is {tuple(influence.shape)} for {rows} rows"):
        order = _interleaved(rows)
        turned = torch.allclose(reward.credit(embedding[order]), influence[order], atol=_CLOSE)
        faults.require(turned, "another order of rows gives other influences")
        largest = influence.abs().max().clamp(min=1e-12)
        faults.require(influence.mean().abs() <= 1e-5 * largest, "the influences of a set have a mean other than 0")


def _check_gradient(faults: Faults, reward: Reward | SetReward, rollout: Rollout, value: Callable[[], Tensor]) -> None:
    tensor = rollout.output.samples if isinstance(rollout.output, Audio) else rollout.output
    if not isinstance(tensor, Tensor):
        only_texts = set(reward.modalities) == {"text"}
        faults.require(
            not (reward.differentiable and only_texts), "texts carry no gradient; differentiable must be False"
        )
        return
    tensor.requires_grad_()
    try:
        total = value().nan_to_num().sum()
        if not faults.require(
            total.requires_grad == reward.differentiable,
            f"differentiable is {reward.differentiable}, and gradient does {'' if total.requires_grad else 'not '}pass",
        ):
            return
        if reward.differentiable:
            (gradient,) = torch.autograd.grad(total, tensor, allow_unused=True)
            faults.require(
                gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.abs().sum() > 0),
                "the gradient that reaches the outputs is zero or not finite",
            )
    finally:
        tensor.requires_grad_(False)


def _interleaved(rows: int) -> Tensor:
    """An order in which neighbours, and so the rows of a group, are apart: the odd rows, then the even ones."""
    return torch.cat([torch.arange(1, rows, 2), torch.arange(0, rows, 2)])


def content(output: Output) -> Any:
    """A copy of outputs, to see afterwards whether they were changed."""
    tensor = output.samples if isinstance(output, Audio) else output
    return tensor.detach().clone() if isinstance(tensor, Tensor) else list(tensor)


def equal_content(one: Any, other: Any) -> bool:
    """Are two results of `content` the same?"""
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other
