"""What the parts of rewards owe: combinations, encoders, and sources of key points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmalign.core.protocols import Adaptive, Combination, Encoder, PointSource, Stateful
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.traits import CombinationTraits
from mmalign.rewards.points import KeyPoint
from mmalign.testing.faults import Faults, has_members, random_state_kept
from mmalign.testing.rewards import content, equal_content

_CLOSE = 1e-5  # of float32 arithmetic in batches of other sizes


def check_combination(combination: Any) -> None:
    """Try `combination` on the scores of the rewards that its options name, and of two more, all in [0, 1].

    Checked: the members of `Combination`; one value per row within `bounds`, NaN exactly where the status carries none;
    the parts and the global random numbers left alone; another order of rows with the same values; gradient to the
    parts exactly where `differentiable` says so; of one that learns, `load_state_dict` of its own `state_dict`.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(combination).__name__)
    if has_members(faults, combination, Combination):
        with faults.stage("combining"), _not_adapting(combination):
            _check_values(faults, combination)
        with faults.stage("combining with gradient"):
            parts, weights, group = _parts(combination, failed=False)
            for part in parts.values():
                part.value.requires_grad_()
            passes = combination(parts, weights, group).value.requires_grad
            faults.require(
                passes == combination.differentiable,
                f"differentiable is {combination.differentiable}, and gradient does {'' if passes else 'not '}pass",
            )
        if isinstance(combination, Stateful):
            with faults.stage("load_state_dict of its own state_dict"):
                combination.load_state_dict(combination.state_dict())
    faults.report()


def check_encoder(encoder: Any, rollout: Rollout) -> None:
    """Try `encoder` on the rows of `rollout`, at least two that it can embed.

    Checked: the members of `Encoder`; one embedding per row, the same whatever rows are beside it; the outputs and the
    global random numbers left alone; a fingerprint that is a text, and the same when asked again.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(encoder).__name__)
    if has_members(faults, encoder, Encoder):
        with faults.stage("embedding"):
            before, rows = content(rollout.output), len(rollout)
            with random_state_kept(faults):
                embedding = encoder.embed(rollout)
            faults.require(equal_content(before, content(rollout.output)), "changes the outputs that it is shown")
            shaped = embedding.ndim == 2 and len(embedding) == rows
            if faults.require(shaped, f"embeds {rows} rows as {tuple(embedding.shape)}; (B, D) is meant"):
                alone = torch.cat([encoder.embed(rollout[row : row + 1]) for row in range(rows)])
                same = torch.allclose(embedding, alone, atol=_CLOSE, equal_nan=True)
                faults.require(same, "an embedding depends on the rows beside it")
        with faults.stage("the fingerprint"):
            fingerprint = encoder.fingerprint()
            faults.require(
                isinstance(fingerprint, str), f"the fingerprint is {type(fingerprint).__name__}; a text is meant"
            )
            faults.require(fingerprint == encoder.fingerprint(), "the fingerprint is another when it is asked again")
    faults.report()


def check_point_source(source: Any, prompts: Sequence[Prompt]) -> None:
    """Try `source` on prompts that have the columns that it needs, at least one of them with key points.

    Checked: the members of `PointSource`; `needs` as columns that all the prompts have; `KeyPoint`s or None of each;
    the same ones when asked again; the global random numbers left alone.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(source).__name__)
    if has_members(faults, source, PointSource):
        absent = sorted({column for prompt in prompts for column in source.needs if column not in prompt.meta})
        faults.require(not absent, f"needs {', '.join(absent)}, which the prompts do not have")
        with faults.stage("asking for key points"):
            with random_state_kept(faults):
                answers = [source(prompt) for prompt in prompts]
            kinds = {
                type(point).__name__ for points in answers for point in points or () if not isinstance(point, KeyPoint)
            }
            faults.require(not kinds, f"gives {', '.join(sorted(kinds))}; KeyPoint is meant")
            faults.require(any(answers), "has no key point for any of the prompts")
            faults.require(answers == [source(prompt) for prompt in prompts], "gives other key points when asked again")
    faults.report()


@contextmanager
def _not_adapting(combination: Combination) -> Iterator[None]:
    """Inside it, what the combination would learn from one order of rows does not count in the next."""
    if not isinstance(combination, Adaptive):
        yield
        return
    before, combination.adapting = combination.adapting, False
    try:
        yield
    finally:
        combination.adapting = before


def _check_values(faults: Faults, combination: Combination) -> None:
    parts, weights, group = _parts(combination)
    before = {name: part.value.clone() for name, part in parts.items()}
    with random_state_kept(faults):
        scores = combination(parts, weights, group)
    untouched = all(torch.equal(part.value.nan_to_num(9), before[n].nan_to_num(9)) for n, part in parts.items())
    faults.require(untouched, "changes the scores that it combines")
    if not faults.require(isinstance(scores, Scores), f"returns {type(scores).__name__}; return Scores"):
        return
    if not faults.require(
        scores.value.shape == group.shape, f"returns {tuple(scores.value.shape)} for {len(group)} rows"
    ):
        return
    valid = scores.valid
    faults.require((scores.value.isfinite() == valid).all(), "a value is finite exactly where its status carries one")
    low, high = combination.bounds(dict.fromkeys(parts, (0.0, 1.0)), weights)
    outside = scores.value[valid & ~((scores.value >= low - _CLOSE) & (scores.value <= high + _CLOSE))].tolist()
    faults.require(not outside, f"values leave the bounds ({low:g}, {high:g}): {outside}")
    order = torch.arange(len(group)).flip(0)
    turned = combination({name: part[order] for name, part in parts.items()}, weights, group[order])
    same = torch.allclose(turned.value, scores.value[order], atol=_CLOSE, equal_nan=True)
    faults.require(same, "another order of rows gives other values")


def _parts(combination: Combination, failed: bool = True) -> tuple[dict[str, Scores], dict[str, float], torch.Tensor]:
    """The scores of rewards on eight rows of two prompts, on which one of them may have failed once."""
    generator = torch.Generator().manual_seed(0)
    names = [*dict.fromkeys([*CombinationTraits.of(combination).mentions, "first", "second"])]
    parts = {name: Scores.of(torch.rand(8, generator=generator)) for name in names}
    if failed:
        parts[names[0]].value[2], parts[names[0]].status[2] = float("nan"), int(Status.ERROR)
    return parts, dict.fromkeys(names, 1.0), torch.arange(8) // 4


__all__ = ["check_combination", "check_encoder", "check_point_source"]
