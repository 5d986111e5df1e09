"""The loop. It drives every objective over every policy.

`list[Prompt]` → `collect` → Experience → `weigh` → `loss` → gradient → update. Weights are set on the whole minibatch
before any split, and losses are weighted sums: the gradient is the same for any `rows`, `spans` and process count.
An objective whose rows enter one another's loss ties them before the split, too (`objectives/_tied.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.experience import Experience
from mmalign.core.objective import Objective
from mmalign.core.protocols import AnyPolicy, Calibrated, Policy
from mmalign.core.rng import stream
from mmalign.core.tensor import Tensor
from mmalign.training.checks import check_start
from mmalign.training.failures import LossWatch, collecting, naming_step, updating
from mmalign.training.session import Session

Hook = Callable[[Session, Any, Experience], None]  # called after each step with the policy and what it learned from


def training_loop(
    policy: AnyPolicy,
    objective: Objective[Any],
    session: Session,
    hooks: Sequence[Hook] = (),
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Align `policy` with `objective` until `session.trainer.steps` steps are done, or `stop()` after one of them.

    One step: collect outputs (no gradient), weigh every entry once over all processes, accumulate the exact gradient
    chunk by chunk, update. Resumes where `session` stands.

    Raises:
        CheckError: the ratio is not 1 or the KL not 0 before the first update, or on policy after it.
        ScoreError: a reward failed on too many rows, or there was nothing to learn from for too long.
        OutOfMemory: which phase did not fit, and what to lower.
        Diverged: the model's outputs or losses are no longer finite.
    """
    session.share_statistics(objective)
    watch = LossWatch()
    for batch in session.remaining():
        with naming_step(session.trainer, session.step):
            experience = one_step(policy, objective, session, batch, watch)
        session.finish_step(objective, experience)
        for hook in hooks:
            with naming_step(session.trainer, session.step):
                hook(session, policy, experience)
        session.finish_hooks()
        if stop():
            return


def one_step(
    policy: AnyPolicy, objective: Objective[Any], session: Session, batch: Sequence[Any], watch: LossWatch
) -> Experience:
    """Collect, check at the start and once weights moved, update on every minibatch; returns what was collected."""
    calibrate(policy, objective, session, batch)
    with torch.no_grad(), session.timed("collect"), collecting(policy, objective, batch):
        experience = objective.collect(policy, batch, session.streams["rollout"])
    if session.unproven:
        with session.timed("check"), updating(policy, experience, session.trainer, "check"):
            check_start(policy, experience, session.rows(experience), session.step == 0, session.moved)
        session.proven = 1 + session.moved
    for minibatch in experience.minibatches(session.trainer.minibatches, session.streams["shuffle"]):
        weighted = minibatch.with_weight(objective.weigh(minibatch.mask, session.mean))
        with session.timed("update"), updating(policy, weighted, session.trainer):
            loss = accumulate(policy, objective, weighted, session)
            session.update(trained=bool(weighted.mask.any()))
        watch.see(loss)
    return experience


def calibrate(policy: AnyPolicy, objective: Objective[Any], session: Session, batch: Sequence[Any]) -> None:
    """Show a reward that measures against the policy's start what that makes of prompts which are new to the reward.

    The outputs of a prompt follow from it and the run's seed alone: no stream of the run moves, and a resumed run, or
    another number of processes, would draw the same.
    """
    reward = session.traits(objective).reward
    prompts = [getattr(item, "prompt", item) for item in batch]
    if not isinstance(reward, Calibrated) or not (new := reward.uncalibrated(prompts)):
        return
    if not isinstance(policy, Policy):
        raise CapabilityError("combine.references: base draws outputs of the policy's start; this policy draws none.")
    with torch.no_grad(), session.timed("calibrate"), policy.reference(), collecting(policy, objective, batch):
        for prompt in new:
            rng = stream(session.trainer.seed, "calibrate", prompt.question)
            reward.calibrate(policy.sample([prompt] * reward.samples, rng))


def accumulate(policy: AnyPolicy, objective: Objective[Any], weighted: Experience, session: Session) -> Tensor:
    """Add the gradient of a weighted minibatch to the parameters, in parts that fit in memory; returns its loss.

    Rows of weight 0 add nothing, and are neither replayed nor sent through backward; the objective counts them.
    """
    if (counts := session.traits(objective).counts) is not None:
        session.meter.add(counts(weighted), share=float(len(weighted)))
    trained, total = weighted.contributing(), torch.zeros(())
    if (tie_rows := session.traits(objective).tie_rows) is not None:
        with torch.no_grad():
            trained = tie_rows(policy, trained, session.rows(trained), session.gather, session.rank)
    for chunk, last in trained.chunks(session.rows(trained), session.steps_per_pass):
        with session.synchronised(policy.module, when=last):
            loss, metrics = objective.loss(policy, chunk, session.streams["loss"])
            session.backward(loss)
        total = total.to(loss.device) + loss.detach()
        named = {name if "/" in name else f"policy/{name}": value for name, value in metrics.items()}
        session.meter.add(named, share=float(len(chunk)))
    return total
