"""What `mmalign train` does once its parts are built, written out: measure, train, measure again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmalign.core.rng import Streams
from mmalign.data._batches import Batches
from mmalign.evaluation.evaluate import evaluate
from mmalign.evaluation.table import roles_of, summarize, summary_table
from mmalign.run.build import Parts
from mmalign.run.hooks import measures
from mmalign.run.train import held_out
from mmalign.training.loop import Hook, train
from mmalign.training.session import Session
from mmalign.training.update import Update


def train_between_measurements(parts: Parts, own: Mapping[str, Any], hooks: Sequence[Hook] = ()) -> list[Any]:
    """Train loaded parts; prints and returns a row per reward: those trained on, the run file's judges, and `own`.

    What is measured afterwards, and what the parts then hold, is the weights' moving average with `trainer.ema`.
    """
    run, prompts = parts.file, held_out(parts)
    judges = {**measures(parts), **own}
    before = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)
    half = getattr(parts.adapter, "dtype", None) == "fp16"  # whose small gradients would be lost without a scale
    session = Session(
        trainer=run.trainer,
        update_rule=Update(list(parts.adapter.trainable().values()), run.trainer, scaled=half),
        batches=Batches(parts.source.training_items(), run.trainer.batch, run.trainer.seed),
        streams=Streams(run.trainer.seed),
    )
    train(parts.policy, parts.objective, session, hooks=[say, *hooks])
    take_average(session.update_rule)
    after = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)

    rows = summarize(before, after, roles_of(run.to_dict()))
    from rich.console import Console

    Console().print(summary_table(rows))
    return rows


@torch.no_grad()
def take_average(update: Update) -> None:
    """Let the weights be their moving average (if there is one) from here on."""
    for parameter, average in zip(update.parameters, update.average or update.parameters, strict=True):
        parameter.copy_(average)


def say(session: Session, policy: Any, experience: Any) -> None:
    """A hook sees every step; this one prints it."""
    rewards = {k: round(v, 4) for k, v in session.latest.items() if k.startswith("reward/") and k.count("/") == 1}
    print(f"step {session.step}: {rewards}", flush=True)
