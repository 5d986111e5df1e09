"""Before the first update the policy must agree with itself: ratio exactly 1, KL exactly 0.

A sampler whose replay differs, a reference that is not the start, or noise that is not shared would bias every later
step without a sign; so each run proves the opposite on its first collected rows, at the size the update will use.
"""

from __future__ import annotations

from functools import singledispatch

import torch

from mmalign.core.errors import CheckError
from mmalign.core.experience import Experience, Pairs, Requests, Transitions
from mmalign.core.protocols import AnyPolicy, DensityPolicy, DiffPolicy, StepPolicy
from mmalign.core.tensor import Tensor


def check_start(policy: AnyPolicy, experience: Experience, rows: int, fresh: bool) -> None:
    """Check the first `rows` rows; `fresh` runs must also equal their reference.

    Raises:
        CheckError: which of ratio, KL, margin and start differs, by how much, and what usually causes it.
    """
    with torch.no_grad():
        _check(experience[:rows], policy, fresh)


@singledispatch
def _check(experience: Experience, policy: AnyPolicy, fresh: bool) -> None:
    """Other experiences (plain data) make no promise before the first update."""


@_check.register
def _(experience: Transitions, policy: StepPolicy, fresh: bool) -> None:
    now = policy.step_dist(experience.rollout)
    advice = (
        "give rollouts and updates the same micro-batch (policy.rows = trainer.micro_batch_size), or set "
        "objective.replay: true and objective.reference_rows to trainer.micro_batch_size"
    )
    _agree(
        "ratio: the replayed log-prob differs from the sampler's", now.log_prob, experience.old.log_prob, policy, advice
    )
    if fresh and experience.ref is not None:
        advice = "the reference must be the policy the run starts from"
        _agree("KL: the reference differs from the policy", now.log_prob, experience.ref.log_prob, policy, advice)


@_check.register
def _(experience: Pairs, policy: DensityPolicy, fresh: bool) -> None:
    if not fresh or experience.ref_chosen is None:
        return
    for side, rollout, reference in (
        ("chosen", experience.chosen, experience.ref_chosen),
        ("rejected", experience.rejected, experience.ref_rejected),
    ):
        now = policy.log_prob(rollout, experience.probe)
        advice = "policy and reference must share the probe and the starting weights"
        _agree(f"margin: the reference differs from the policy on the {side} side", now, reference, policy, advice)


@_check.register
def _(experience: Requests, policy: DiffPolicy, fresh: bool) -> None:
    if not fresh:
        return
    now = policy.rsample(experience.prompts, experience.draws).trajectory["x0"]
    with policy.reference():
        start = policy.rsample(experience.prompts, experience.draws).trajectory["x0"]
    _agree(
        "start: the reference generates other outputs than the policy", now, start, policy, "load both from one place"
    )


def tolerance(policy: AnyPolicy) -> float:
    """Nats by which two computations of one log-prob may differ: rounding grows with the number of dimensions."""
    size, adapter = int(getattr(policy, "event_size", 1)), getattr(policy, "adapter", None)
    reduced = str(getattr(adapter, "dtype", "fp32")) in ("bf16", "fp16")
    if reduced and hasattr(adapter, "vocabulary"):
        # Logits from 32 on lie 0.25 apart in bfloat16, and padding or other rows beside one's own move them by that.
        return 0.5 * size
    # 1e-4 per dimension is the tightest published clip range in mean space: noise beyond it would be clipped.
    return max(1e-3, (1e-4 if reduced else 1e-6) * size)


def _agree(what: str, now: Tensor, then: Tensor | None, policy: AnyPolicy, advice: str) -> None:
    if then is None:
        return
    gap = float((now - then).abs().max())
    if not gap <= tolerance(policy):  # catches NaN too
        raise CheckError(f"{what} by {gap:.3g} (allowed {tolerance(policy):.1g}) before the first update: {advice}.")
