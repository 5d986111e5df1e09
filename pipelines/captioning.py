"""Teach a vision-language model to describe pictures, in Python, with a reward of one's own beside the run file's.

python -m pipelines.captioning                                         # the embedded model, some minutes on a CPU
python -m pipelines.captioning configs/scenes/caption_bmas.yaml        # another reward
python -m pipelines.captioning configs/text/caption_clip_grpo.yaml data.path=my_pictures.jsonl
python -m pipelines.captioning --resume runs/captioning                # goes on after Ctrl-C

Leaves a run directory (checkpoints that plain transformers or peft load, samples, a report) and in it `captions.jsonl`:
of every held-out picture its references, and what was said of it before and after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mmalign
from pipelines._command_line import given, same_file
from pipelines._printing import tell

if TYPE_CHECKING:
    from mmalign.run.train import Finished

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "text" / "captioner.yaml"
OUT = Path("runs/captioning")


@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))
def colours_named(prompt: mmalign.Prompt, output: str) -> float:
    """A reward of one's own: which share of a caption's words are colours."""
    words = output.lower().split()
    return sum(word in {"red", "green", "blue", "yellow", "purple", "black"} for word in words) / max(len(words), 1)


def main(config: Path = CONFIG, changes: Sequence[str] = (), out: Path = OUT, resume: Path | None = None) -> Finished:
    """Check, measure, train, measure again; leaves captions before and after in the run directory."""
    finished = mmalign.train(
        same_file(resume, config),
        changes,
        out=None if resume else out,
        resume=resume,
        judges={"colours": colours_named()},
    )
    if finished.rows:  # measured on held-out pictures
        write_captions(finished)
    return finished


def write_captions(finished: Finished) -> None:
    """What was said of every held-out picture before and after, as it was measured."""
    from mmalign.core.files import write_beside
    from mmalign.evaluation.records import Evaluation

    before, after = (Evaluation.load(finished.directory.evaluation(when)) for when in ("before", "after"))
    captions = [
        {"references": prompt.meta.get("references"), "before": old, "after": new}
        for prompt, old, new in zip(before.prompts, before.outputs, after.outputs, strict=True)
    ]
    with write_beside(finished.directory.path / "captions.jsonl") as beside:
        beside.write_text("".join(json.dumps(row) + "\n" for row in captions), encoding="utf-8")


if __name__ == "__main__":
    asked = given(__doc__, [CONFIG], OUT)
    with mmalign.errors_as_sentences():
        tell(main(asked.files[0], asked.changes, asked.out, asked.resume))
