"""A policy on held-out prompts, judged by any rewards: the same noise before and after training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmalign.core.errors import CapabilityError, ConfigError, DataError, ScoreError
from mmalign.core.protocols import Gather, Policy, Reward, SetReward, one_alone
from mmalign.core.rng import stream, stream_seed
from mmalign.core.types import Audio, Output, Prompt, Rollout, Scores
from mmalign.evaluation.bootstrap import resampled_rows
from mmalign.evaluation.records import Evaluation, RowScores, SetValue
from mmalign.media.image import to_uint8
from mmalign.rewards.engine.foreign_code import foreign_call, prepare_all
from mmalign.rewards.engine.sets import Embedded, embed_rows, scoring_a_set

log = logging.getLogger("mmalign")

__all__ = ["Share", "evaluate_policy", "evaluate_shared"]

SET_RESAMPLES = 200
NOISE = "by output"  # what an evaluation says of its noise; older ones drew it by chunk


def evaluate_policy(
    policy: Policy,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, Reward | SetReward],
    *,
    seed: int = 0,
    rows: int = 64,
    repeats: int = 1,
    keep: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Generate for every prompt by the deployment sampler and score with every reward; no gradient.

    Args:
        policy: its `generate` is called on chunks, its module is in evaluation mode meanwhile.
        prompts: each answered `repeats` times; the rows of one prompt stay together.
        rewards: by the name they get in tables. Set rewards embed chunk by chunk and score the whole.
        seed: output i draws its noise from a stream named by (seed, i), whatever the weights are, so evaluations with
            equal prompts, seed and repeats compare like with like.
        rows: outputs per chunk, a memory knob.
        repeats: outputs per prompt.
        keep: outputs kept in the result for people to look at (texts are all kept).
        progress: called with (rows done, rows in all) after each chunk.

    Raises:
        DataError: no prompts.
        ConfigError: fewer rows than repeats.
        CapabilityError: a reward that cannot judge what the policy makes.
        ScoreError: a reward that answered with another number of rows; a reward's own exception says where it happened.
    """
    alone = Share(progress=progress)
    evaluation = evaluate_shared(policy, prompts, rewards, alone, seed=seed, rows=rows, repeats=repeats, keep=keep)
    assert evaluation is not None, "the only process is the first"
    return evaluation


@dataclass(frozen=True)
class Share:
    """One process of several that evaluate together, by default the only one.

    `gather` is a collective of all; `progress` is called with (rows done, rows in all) after each chunk.
    """

    rank: int = 0
    processes: int = 1
    gather: Gather = one_alone
    progress: Callable[[int, int], None] | None = None


def evaluate_shared(
    policy: Policy,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, Reward | SetReward],
    share: Share,
    *,
    seed: int = 0,
    rows: int = 64,
    repeats: int = 1,
    keep: int = 16,
) -> Evaluation | None:
    """`evaluate_policy` by several processes, the chunks dealt out in turn; the first returns it, the others None.

    The chunks and their noise are those of one process, so what is found is too.
    """
    start, groups = time.perf_counter(), list(prompts)
    _check(policy, groups, rewards, rows, repeats)
    prepare_all({f"reward '{name}'": reward for name, reward in rewards.items()})
    per_chunk, total = rows // repeats, len(groups) * repeats
    mine = []
    with torch.no_grad(), eval_mode(getattr(policy, "module", None)):
        for first in range(0, len(groups), per_chunk)[share.rank :: share.processes]:
            part = groups[first : first + per_chunk]
            noise = [stream(seed, "evaluate", first * repeats + row) for row in range(len(part) * repeats)]
            rollout = policy.generate([p for p in part for _ in range(repeats)], noise)
            numbers = torch.arange(first, first + len(part)).repeat_interleave(repeats)
            rollout = replace(rollout, group=numbers.to(rollout.group.device))
            judged = {name: _judged(name, reward, rollout) for name, reward in rewards.items()}
            mine.append((first, judged, _kept(rollout.output, keep - first * repeats)))
            if share.progress:
                share.progress(min(total, len(mine) * share.processes * per_chunk * repeats), total)
    chunks = sorted((one for part in share.gather(mine) for one in part), key=lambda one: int(one[0]))
    if share.rank:
        return None
    by_reward = {name: [judged[name] for _, judged, _ in chunks] for name in rewards}
    group = torch.arange(len(groups)).repeat_interleave(repeats)
    sets = {name: reward for name, reward in rewards.items() if isinstance(reward, SetReward)}
    return Evaluation(
        modality=policy.modality,
        prompts=[p for p in groups for _ in range(repeats)],
        group=group.numpy(),
        scores={name: RowScores.of(_joined(by_reward[name])) for name in rewards if name not in sets},
        sets={
            name: _set_value(name, reward, _rows(name, by_reward[name]), group, seed) for name, reward in sets.items()
        },
        outputs=_stacked([outputs for _, _, outputs in chunks if outputs is not None]),
        seed=seed,
        rows=rows,
        repeats=repeats,
        seconds=time.perf_counter() - start,
        extra={"noise": NOISE},
    )


def _check(policy: Policy, prompts: list[Prompt], rewards: Mapping[str, Any], rows: int, repeats: int) -> None:
    if not prompts:
        raise DataError("there are no prompts to evaluate on; set data.held_out, data.held_out_path or --prompts.")
    if repeats < 1 or rows < repeats:
        raise ConfigError(f"evaluation.rows: {rows} rows cannot hold the {repeats} repeats of one prompt.")
    for name, reward in rewards.items():
        if policy.modality not in reward.modalities:
            raise CapabilityError(
                f"reward '{name}' judges {' and '.join(sorted(reward.modalities))}, the policy makes {policy.modality}."
            )


@contextmanager
def eval_mode(module: nn.Module | None) -> Iterator[None]:
    """Dropout off, and every submodule's mode restored afterwards."""
    training = [m for m in module.modules() if m.training] if module is not None else []
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


def _judged(name: str, reward: Reward | SetReward, rollout: Rollout) -> Scores | Embedded:
    try:
        if isinstance(reward, SetReward):
            with foreign_call(name, len(rollout)):
                result: Scores | Embedded = embed_rows(name, reward, rollout).to("cpu")
        else:
            result = reward(rollout).to("cpu")
    except Exception as error:
        error.add_note(f"while reward '{name}' judged prompts {rollout.group.min()} to {rollout.group.max()}")
        raise
    answered = len(result.value) if isinstance(result, Scores) else len(result.rows)
    if answered != len(rollout.prompts):
        raise ScoreError(f"reward '{name}' answered {answered} rows for {len(rollout.prompts)} outputs.")
    return result


def _joined(chunks: list[Scores]) -> Scores:
    """Scores of all rows; a part that some chunk lacks is NaN there."""
    names = dict.fromkeys(name for chunk in chunks for name in chunk.parts)
    absent = [torch.full((len(chunk.value),), torch.nan) for chunk in chunks]
    return Scores(
        value=torch.cat([chunk.value.float() for chunk in chunks]),
        status=torch.cat([chunk.status.to(torch.int8) for chunk in chunks]),
        parts={n: torch.cat([c.parts.get(n, a).float() for c, a in zip(chunks, absent, strict=True)]) for n in names},
    )


def _rows(name: str, chunks: list[Embedded]) -> Tensor:
    """All embeddings; rows that have none are said. ScoreError where no row at all has one."""
    embeddings = Embedded.joined(name, chunks)
    rows = embeddings.required(name)
    if embeddings.why:
        log.warning(
            "reward '%s' could not embed %d of %d rows; %s.", name, len(embeddings.why), len(rows), embeddings.first()
        )
    return rows


def _set_value(name: str, reward: SetReward, embedding: Tensor, group: Tensor, seed: int) -> SetValue:
    """Rows that could not be embedded leave after the prompts are drawn: paired evaluations share their draws."""
    sound = embedding.flatten(1).isfinite().all(1)

    def score(rows: Tensor) -> Tensor:
        rows = rows[sound[rows]]
        if len(rows) < 2:
            return torch.tensor(torch.nan)
        with scoring_a_set(name, len(rows)):
            return reward.score(embedding[rows]).float().cpu()

    draws = resampled_rows(group.numpy(), SET_RESAMPLES, stream_seed(seed, "bootstrap"))
    resampled = torch.stack([score(torch.from_numpy(rows)) for rows in draws])
    embedded = int(sound.sum())
    return SetValue(float(score(torch.arange(len(sound)))), resampled.numpy(), embedded, len(sound) - embedded)


def _kept(output: Output, room: int) -> Any:
    """The first `room` outputs of a chunk for people to look at (texts: all); None if there is no room."""
    if isinstance(output, list):
        return output
    if room <= 0:
        return None
    part = output[:room]
    return part.to("cpu") if isinstance(part, Audio) else to_uint8(part).numpy()


def _stacked(chunks: list[Any]) -> Any:
    """One batch; sound of different lengths is padded and masked."""
    if not chunks or not isinstance(chunks[0], Audio):
        return [text for part in chunks for text in part] if chunks and isinstance(chunks[0], list) else _cat(chunks)
    longest = max(part.samples.shape[2] for part in chunks)
    masks = [torch.ones(len(p), p.samples.shape[2], dtype=torch.bool) if p.mask is None else p.mask for p in chunks]
    return Audio(
        torch.cat([nn.functional.pad(p.samples, (0, longest - p.samples.shape[2])) for p in chunks]),
        chunks[0].rate,
        torch.cat([nn.functional.pad(mask, (0, longest - mask.shape[1])) for mask in masks]),
    )


def _cat(chunks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.uint8)
