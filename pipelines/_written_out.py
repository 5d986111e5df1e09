"""What `mmalign train` does once its parts are built, written out: measure, train, measure again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.core.rng import Streams
from mmalign.core.types import Prompt
from mmalign.data._batches import Batches
from mmalign.evaluation.evaluate import evaluate
from mmalign.evaluation.table import roles_of, summarize, summary_table
from mmalign.run.build import Parts
from mmalign.training.loop import Hook, train
from mmalign.training.session import Session
from mmalign.training.update import Update


def held_out(parts: Parts) -> list[Prompt]:
    """The prompts that are measured on."""
    return list(parts.source.held_out_items()[: parts.file.evaluation.count])


def train_between_measurements(parts: Parts, own: Mapping[str, Any], hooks: Sequence[Hook] = ()) -> list[Any]:
    """Train loaded parts; prints and returns a row per reward: those trained on, the run file's judges, and `own`."""
    run, prompts = parts.file, held_out(parts)
    judges: dict[str, Any] = {**{n: s.reward for n, s in parts.reward.slots.items()}, **parts.judges, **own}
    before = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)
    session = Session(
        trainer=run.trainer,
        update_rule=Update(list(parts.adapter.trainable().values()), run.trainer),
        batches=Batches(parts.source.training_items(), run.trainer.batch, run.trainer.seed),
        streams=Streams(run.trainer.seed),
    )
    train(parts.policy, parts.objective, session, hooks=[say, *hooks])
    after = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)

    rows = summarize(before, after, roles_of(run.to_dict()))
    from rich.console import Console

    Console().print(summary_table(rows))
    return rows


def say(session: Session, policy: Any, experience: Any) -> None:
    """A hook sees every step; this one prints it."""
    rewards = {k: round(v, 4) for k, v in session.latest.items() if k.startswith("reward/") and k.count("/") == 1}
    print(f"step {session.step}: {rewards}", flush=True)
