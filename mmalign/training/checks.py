"""Where nothing was updated in between, the policy must agree with itself: ratio exactly 1, KL exactly 0.

A sampler whose replay differs, a reference that is not the start, or noise that is not shared would bias every later
step without a sign; so each run proves the opposite on its first collected rows, at the size the update will use. It
proves it again on the first rows of weights that an update has moved: until then a fresh LoRA adds nothing (B = 0), and
what it draws or how it is added cannot show.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

import torch

from mmalign.core.errors import CheckError
from mmalign.core.experience import Experience, Pairs, Requests, Transitions
from mmalign.core.protocols import AnyPolicy, DensityPolicy, DiffPolicy, StepPolicy
from mmalign.core.tensor import Tensor

Compared = Iterator[tuple[str, Tensor, Tensor, str]]  # what should be equal, both of it, and what to do
DRAWN = "something in the network draws at random (dropout); what it says of one output must not change"


def check_start(policy: AnyPolicy, experience: Experience, rows: int, fresh: bool, moved: bool = False) -> None:
    """Check the first `rows` rows, before any update since they were collected.

    Args:
        policy: that collected them.
        experience: of one step.
        rows: as many as a forward of the update takes.
        fresh: the weights are those that the run starts from, and must equal the reference.
        moved: an update has changed the weights.

    Raises:
        CheckError: which of ratio, KL, margin and start differs, by how much, and what usually causes it.
    """
    when = "after the first update" if moved else "before the first update"
    with torch.no_grad():
        for what, now, then, advice in _compared(experience[:rows], policy, fresh):
            gap = float((now - then).abs().max())
            if not gap <= tolerance(policy):  # catches NaN too
                raise CheckError(f"{what} by {gap:.3g} (allowed {tolerance(policy):.1g}) {when}: {advice}.")


@singledispatch
def _compared(experience: Experience, policy: AnyPolicy, fresh: bool) -> Compared:
    """Other experiences (plain data) make no promise."""
    yield from ()


@_compared.register
def _(experience: Transitions, policy: StepPolicy, fresh: bool) -> Compared:
    now = policy.step_dist(experience.rollout)
    advice = (
        "give rollouts and updates the same micro-batch (policy.rows = trainer.micro_batch_size), or set "
        "objective.replay: true and objective.reference_rows to trainer.micro_batch_size"
    )
    yield "ratio: the replayed log-prob differs from the sampler's", now.log_prob, experience.old.log_prob, advice
    if fresh and experience.ref is not None:
        advice = "the reference must be the policy the run starts from"
        yield "KL: the reference differs from the policy", now.log_prob, experience.ref.log_prob, advice


@_compared.register
def _(experience: Pairs, policy: DensityPolicy, fresh: bool) -> Compared:
    for side, rollout, reference in (
        ("chosen", experience.chosen, experience.ref_chosen),
        ("rejected", experience.rejected, experience.ref_rejected),
    ):
        if fresh and reference is None:
            continue
        now = policy.log_prob(rollout, experience.probe)
        if fresh and reference is not None:
            advice = "policy and reference must share the probe and the starting weights"
            yield f"margin: the reference differs from the policy on the {side} side", now, reference, advice
        else:
            again = policy.log_prob(rollout, experience.probe)
            yield f"log-prob: asked twice, the policy differs on the {side} side", now, again, DRAWN


@_compared.register
def _(experience: Requests, policy: DiffPolicy, fresh: bool) -> Compared:
    now = policy.rsample(experience.prompts, experience.draws).trajectory["x0"]
    if not fresh:
        again = policy.rsample(experience.prompts, experience.draws).trajectory["x0"]
        yield "start: asked twice from the same noise, the policy makes other outputs", now, again, DRAWN
        return
    with policy.reference():
        start = policy.rsample(experience.prompts, experience.draws).trajectory["x0"]
    yield "start: the reference generates other outputs than the policy", now, start, "load both from one place"


def tolerance(policy: AnyPolicy) -> float:
    """Nats by which two computations of one log-prob may differ: rounding grows with the number of dimensions."""
    size, adapter = int(getattr(policy, "event_size", 1)), getattr(policy, "adapter", None)
    reduced = str(getattr(adapter, "dtype", "fp32")) in ("bf16", "fp16")
    if reduced and hasattr(adapter, "vocabulary"):
        # Logits from 32 on lie 0.25 apart in bfloat16, and padding or other rows beside one's own move them by that.
        return 0.5 * size
    # 1e-4 per dimension is the tightest published clip range in mean space: noise beyond it would be clipped.
    return max(1e-3, (1e-4 if reduced else 1e-6) * size)
