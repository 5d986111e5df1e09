"""Outputs of a policy, their scores, and what the policy says of them again, without gradient, a few rows at a time.

To *recompute* is to ask the policy, under the weights that it has now (or the reference, inside `policy.reference()`),
for the log-probs of steps or outputs that were made earlier: B rows, T steps, sums over event dimensions in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float

from mmalign.core.errors import DataError, ScoreError
from mmalign.core.metrics import Average
from mmalign.core.protocols import DensityPolicy, JointDensityPolicy, Policy, Probe, StepPolicy
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Prompt, Rollout, Scores, StepDist, join

Scorer = Callable[[Rollout], Scores]  # a `Reward`, of which an objective needs no more than that it scores


def sample_groups(policy: Policy, prompts: Sequence[Prompt], size: int, rng: torch.Generator) -> Rollout:
    """Sample `size` outputs for each prompt, group-major; `group` numbers the batch's prompts, equal texts or not."""
    rollout = policy.sample([prompt for prompt in prompts for _ in range(size)], rng)
    return replace(rollout, group=torch.arange(len(rollout), device=rollout.group.device) // size)


def score_rollout(reward: Scorer, rollout: Rollout) -> Scores:
    """The reward's scores on the rollout's device. Raises ScoreError on a wrong row count or a non-finite valid value.

    A value that cannot be used must come with a status that says so: a silent NaN or infinity would enter the group's
    statistics.
    """
    scores = reward(rollout)
    name = f"reward {type(reward).__name__}"
    if len(scores.value) != len(rollout):
        raise ScoreError(f"{name} returned {len(scores.value)} scores for {len(rollout)} rows.")
    scores = scores.to(rollout.group.device)
    finite = scores.value.isfinite()
    if scores.per_step is not None:
        finite = finite & scores.per_step.isfinite().all(1)
    if (broken := scores.valid & ~finite).any():
        row = int(broken.nonzero()[0, 0])
        raise ScoreError(
            f"{name} scored {int(broken.sum())} of {len(rollout)} rows as usable with a value that is not finite "
            f"(row {row}: {scores.value[row].item()}); return status error, or a finite floor in its range."
        )
    return scores


def batch_outputs(outputs: Sequence[Any], side: str) -> Any:
    """Single outputs as one batch: tensors are stacked, one-row `Audio` padded and masked, strings listed."""
    kinds = {type(output).__name__ for output in outputs}
    if len(kinds) > 1:
        raise DataError(f"'{side}' mixes {' and '.join(sorted(kinds))} in one batch; keep one kind of output.")
    if isinstance(outputs[0], Audio):
        return _sounds(outputs, side)
    if not isinstance(outputs[0], Tensor):
        return list(outputs)
    shapes = {tuple(output.shape) for output in outputs}
    if len(shapes) > 1:
        raise DataError(f"'{side}' holds images of {len(shapes)} sizes ({sorted(shapes)}); resize them to one size.")
    return torch.stack(list(outputs))


def _sounds(outputs: Sequence[Audio], side: str) -> Audio:
    rates = {output.rate for output in outputs}
    if len(rates) > 1:
        raise DataError(f"'{side}' holds sound at {sorted(rates)} Hz; resample it to one rate.")
    channels = {output.samples.shape[1] for output in outputs}
    if len(channels) > 1:
        raise DataError(f"'{side}' holds sound of {sorted(channels)} channels; mix it to one number of them.")
    longest = max(output.samples.shape[-1] for output in outputs)
    padded = []
    for output in outputs:
        missing = longest - output.samples.shape[-1]
        rows, _, length = output.samples.shape
        mask = torch.ones(rows, length, dtype=torch.bool) if output.mask is None else output.mask
        padded.append(
            replace(
                output,
                samples=torch.nn.functional.pad(output.samples, (0, missing)),
                mask=torch.nn.functional.pad(mask, (0, missing)),
            )
        )
    sound: Audio = join(padded)
    return sound


def event_size(policy: DensityPolicy, rollout: Rollout) -> int:
    """What a log-prob of these outputs sums over: elements of a latent of their own shape, else `policy.event_size`."""
    clean = rollout.trajectory.get("x0")
    return policy.event_size if clean is None else clean[0].numel()


def reference_sum(reference: Float[Tensor, "B T"] | None) -> Float[Tensor, " B"]:
    """The reference's log-prob of each output, which pairs of `add_reference_terms` hold."""
    assert reference is not None, "pairs without reference terms; make them with `add_reference_terms`"
    return reference.sum(1)


def masked_means(mask: Bool[Tensor, "*any"], values: Mapping[str, Tensor]) -> dict[str, Average]:
    """The average over the masked entries of each metric (`core.metrics.METRICS`), detached; {} if no entry counts."""
    return {name: Average.of(value, mask) for name, value in values.items()} if mask.any() else {}


@without_gradient
def recompute_steps(policy: StepPolicy, rollout: Rollout, rows: int, *, moments: bool) -> StepDist:
    """`policy.step_dist` of the whole rollout, `rows` rows at a time; the log-prob alone unless `moments`."""
    pieces = [rollout[start : start + rows] for start in range(0, len(rollout), rows)]
    if not moments:
        return StepDist(torch.cat([policy.step_log_prob(piece, slice(None)) for piece in pieces]))
    return replace(join([policy.step_dist(piece, slice(None)) for piece in pieces]), entropy=None)


@without_gradient
def recompute_steps_where(
    policy: StepPolicy,
    rollout: Rollout,
    needed: Bool[Tensor, " B"],
    otherwise: Float[Tensor, "B T"],
    rows: int,
    *,
    moments: bool,
) -> StepDist:
    """`recompute_steps` of the rows that are `needed`; the others, which nothing reads, keep the log-prob `otherwise`.

    Their moments are 0 and 1: finite, so that a term of weight 0 stays 0.
    """
    if bool(needed.all()):
        return recompute_steps(policy, rollout, rows, moments=moments)
    chosen = needed.nonzero()[:, 0] if bool(needed.any()) else needed.new_zeros(1, dtype=torch.long)
    dist = recompute_steps(policy, rollout[chosen], rows, moments=moments)

    def scatter(part: Tensor | None, rest: float) -> Tensor | None:
        if part is None:
            return None
        return part.new_full((len(needed), *part.shape[1:]), rest).index_copy(0, chosen, part)

    log_prob = otherwise.to(dist.log_prob).index_copy(0, chosen, dist.log_prob)
    return StepDist(
        log_prob, mean=scatter(dist.mean, 0.0), std=scatter(dist.std, 1.0), entropy=None, dt=scatter(dist.dt, 1.0)
    )


@without_gradient
def recompute_log_prob(policy: DensityPolicy, rollout: Rollout, probe: Probe, rows: int) -> Float[Tensor, "B T"]:
    """`policy.log_prob` of the whole rollout under `probe`, `rows` rows at a time."""
    return recompute_side_log_probs(policy, [rollout], probe, rows)[0]


@without_gradient
def recompute_side_log_probs(
    policy: DensityPolicy, sides: Sequence[Rollout], probe: Probe, rows: int
) -> list[Float[Tensor, "B _"]]:
    """`side_log_probs` of whole rollouts, `rows` rows at a time (one of each side at least)."""
    size = max(1, rows // len(sides)) if _in_one_pass(policy, sides) else rows
    parts = []
    for i in range(0, len(sides[0]), size):
        part = {k: v[i : i + size] for k, v in probe.items()}
        parts.append(side_log_probs(policy, [side[i : i + size] for side in sides], part))
    return [torch.cat(side) for side in zip(*parts, strict=True)]


def side_log_probs(policy: DensityPolicy, sides: Sequence[Rollout], probe: Probe) -> list[Float[Tensor, "B _"]]:
    """`policy.log_prob` of several answers to the same prompts, with gradient; in one pass where the policy can."""
    if len(sides) > 1 and isinstance(policy, JointDensityPolicy):
        return policy.log_probs(sides, probe)
    return [policy.log_prob(side, probe) for side in sides]


def _in_one_pass(policy: DensityPolicy, sides: Sequence[Rollout]) -> bool:
    return len(sides) > 1 and isinstance(policy, JointDensityPolicy)


__all__ = [
    "Scorer",
    "batch_outputs",
    "event_size",
    "masked_means",
    "recompute_log_prob",
    "recompute_side_log_probs",
    "recompute_steps",
    "recompute_steps_where",
    "reference_sum",
    "sample_groups",
    "score_rollout",
    "side_log_probs",
]
