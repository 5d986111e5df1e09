"""Fine-tune a text-to-image model against rewards, written out: what `mmalign train` does, in Python.

python -m pipelines.text_to_image                                     # the embedded model, a few minutes on a CPU
python -m pipelines.text_to_image configs/text_to_image/sd3_grpo.yaml data.path=my_prompts.txt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import mmalign
from mmalign.core.config import load
from mmalign.core.rng import Streams, stream
from mmalign.core.types import Rollout, Scores
from mmalign.data._batches import Batches
from mmalign.evaluation.evaluate import evaluate
from mmalign.evaluation.table import summarize, summary_table
from mmalign.media.image import contact_sheet
from mmalign.run.build import build
from mmalign.training.loop import train
from mmalign.training.session import Session
from mmalign.training.update import Update

CONFIG = Path(__file__).parents[1] / "configs" / "scenes" / "grpo_verifier.yaml"


@mmalign.rule(modalities={"image"}, range=(0.0, 1.0))
def colourful(prompt: mmalign.Prompt, output: torch.Tensor) -> float:
    """A reward of one's own: how far the pixels are from grey, (3, H, W) in [0, 1]."""
    return float((output.amax(0) - output.amin(0)).mean())


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/pipeline")) -> None:
    """Build, measure, train, measure again, and leave a sheet of pictures."""
    run = load(config, changes)
    parts = build(run)  # every check of the run file happens here, before any weight is loaded
    parts.load()

    prompts = parts.source.held_out_items()[: run.evaluation.count]
    judges: dict[str, Any] = {**{n: s.reward for n, s in parts.reward.slots.items()}, **parts.judges}
    judges["colourful"] = colourful()
    before = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)

    session = Session(
        trainer=run.trainer,
        update_rule=Update(list(parts.adapter.trainable().values()), run.trainer),
        batches=Batches(parts.source.training_items(), run.trainer.batch, run.trainer.seed),
        streams=Streams(run.trainer.seed),
    )
    train(parts.policy, parts.objective, session, hooks=[say, Sheets(prompts[:16], out)])

    after = evaluate(parts.policy, prompts, judges, seed=run.evaluation.seed, rows=run.evaluation.rows)
    roles: Any = dict.fromkeys(parts.reward.slots, "trained")
    from rich.console import Console

    Console().print(summary_table(summarize(before, after, roles)))
    parts.adapter.save(out / "adapter")  # plain diffusers loads it


def say(session: Session, policy: Any, experience: Any) -> None:
    """A hook sees every step; this one prints it."""
    rewards = {k: round(v, 4) for k, v in session.latest.items() if k.startswith("reward/") and k.count("/") == 1}
    print(f"step {session.step}: {rewards}", flush=True)


class Sheets:
    """The same prompts with the same noise every ten steps, as pictures to look at."""

    def __init__(self, prompts: list[Any], out: Path) -> None:
        self.prompts, self.out = prompts, out

    def __call__(self, session: Session, policy: Any, experience: Any) -> None:
        """Write one sheet when due."""
        if session.step % 10 or not self.prompts:
            return
        made: Rollout = policy.generate(self.prompts, stream(0, "sheet"))
        scores: Scores = colourful()(made)
        captions = [f"{p.text}\n{v:.2f}" for p, v in zip(self.prompts, scores.value.tolist(), strict=True)]
        self.out.mkdir(parents=True, exist_ok=True)
        contact_sheet(made.output, captions).save(self.out / f"step_{session.step:04d}.png")


if __name__ == "__main__":
    words = sys.argv[1:]
    named = [Path(words.pop(0))] if words and "=" not in words[0] else []
    main(*named, changes=tuple(words))
