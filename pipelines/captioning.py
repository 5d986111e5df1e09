"""Teach a vision-language model to describe pictures, written out: what `mmalign train` does, in Python.

python -m pipelines.captioning                                         # the embedded model, some minutes on a CPU
python -m pipelines.captioning configs/scenes/caption_bmas.yaml        # another reward
python -m pipelines.captioning configs/text/caption_clip_grpo.yaml data.path=my_pictures.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mmalign
from mmalign.core.config import load
from mmalign.core.files import write_beside
from mmalign.core.rng import Streams, stream
from mmalign.data._batches import Batches
from mmalign.evaluation.evaluate import evaluate
from mmalign.evaluation.table import summarize, summary_table
from mmalign.run.build import build
from mmalign.training.loop import train
from mmalign.training.session import Session
from mmalign.training.update import Update

CONFIG = Path(__file__).parents[1] / "configs" / "scenes" / "caption_clip_s.yaml"


@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))
def colours_named(prompt: mmalign.Prompt, output: str) -> float:
    """A reward of one's own: which share of a caption's words are colours."""
    words = output.lower().split()
    return sum(word in {"red", "green", "blue", "yellow", "purple", "black"} for word in words) / max(len(words), 1)


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/captioning")) -> list[Any]:
    """Build, measure, train, measure again; leaves captions before and after, and the trained weights, in `out`."""
    run = load(config, changes)
    parts = build(run)  # every check of the run file happens here, before any weight is loaded
    parts.load()

    prompts = parts.source.held_out_items()[: run.evaluation.count]
    judges: dict[str, Any] = {**{n: s.reward for n, s in parts.reward.slots.items()}, **parts.judges}
    judges["colours"] = colours_named()
    before = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)
    first = captions(parts.policy, prompts[:32])

    session = Session(
        trainer=run.trainer,
        update_rule=Update(list(parts.adapter.trainable().values()), run.trainer),
        batches=Batches(parts.source.training_items(), run.trainer.batch, run.trainer.seed),
        streams=Streams(run.trainer.seed),
    )
    train(parts.policy, parts.objective, session, hooks=[say])

    after = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)
    last = captions(parts.policy, prompts[:32])
    out.mkdir(parents=True, exist_ok=True)
    with write_beside(out / "captions.jsonl") as beside:
        rows = [
            {"references": prompt.meta.get("references"), "before": old, "after": new}
            for prompt, old, new in zip(prompts, first, last, strict=False)
        ]
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    parts.adapter.save(out / "adapter")  # plain transformers (or peft) loads it

    roles: Any = {name: spec.get("role", "judge") for name, spec in run.evaluation.judges.items()}
    roles |= dict.fromkeys(parts.reward.slots, "trained")
    rows = summarize(before, after, roles)
    from rich.console import Console

    Console().print(summary_table(rows))
    return rows


def captions(policy: Any, prompts: list[Any]) -> list[str]:
    """What the policy says of some pictures."""
    said: list[str] = policy.generate(prompts, stream(0, "captions")).output
    return said


def say(session: Session, policy: Any, experience: Any) -> None:
    """A hook sees every step; this one prints it."""
    rewards = {k: round(v, 4) for k, v in session.latest.items() if k.startswith("reward/") and k.count("/") == 1}
    print(f"step {session.step}: {rewards}", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    named = [Path(words.pop(0))] if words and "=" not in words[0] else []
    main(*named, changes=tuple(words))
