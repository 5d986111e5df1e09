"""Teach a vision-language model to describe pictures, in Python, part by part.

python -m pipelines.captioning                                         # the embedded model, some minutes on a CPU
python -m pipelines.captioning configs/scenes/caption_bmas.yaml        # another reward
python -m pipelines.captioning configs/text/caption_clip_grpo.yaml data.path=my_pictures.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mmalign
from mmalign.cli._faults import faults_told
from mmalign.core.config import load
from mmalign.core.files import write_beside
from mmalign.core.rng import stream
from mmalign.run.build import build
from mmalign.run.train import held_out
from pipelines._command_line import files_and_changes
from pipelines._written_out import train_between_measurements

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "text" / "captioner.yaml"


@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))
def colours_named(prompt: mmalign.Prompt, output: str) -> float:
    """A reward of one's own: which share of a caption's words are colours."""
    words = output.lower().split()
    return sum(word in {"red", "green", "blue", "yellow", "purple", "black"} for word in words) / max(len(words), 1)


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/captioning")) -> list[Any]:
    """Build, measure, train, measure again; leaves captions before and after, and the trained weights, in `out`."""
    parts = build(load(config, changes))  # every check of the run file happens here, before any weight is loaded
    parts.load()

    prompts = held_out(parts)[:32]
    first = captions(parts.policy, prompts)
    rows = train_between_measurements(parts, {"colours": colours_named()})
    last = captions(parts.policy, prompts)
    out.mkdir(parents=True, exist_ok=True)
    with write_beside(out / "captions.jsonl") as beside:
        said = [
            {"references": prompt.meta.get("references"), "before": old, "after": new}
            for prompt, old, new in zip(prompts, first, last, strict=True)
        ]
        beside.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    parts.adapter.save(out / "adapter")  # plain transformers (or peft) loads it
    return rows


def captions(policy: Any, prompts: list[Any]) -> list[str]:
    """What the policy says of some pictures."""
    said: list[str] = policy.generate(prompts, stream(0, "captions")).output
    return said


if __name__ == "__main__":
    (chosen,), changed = files_and_changes(__doc__, [CONFIG])
    with faults_told():
        main(chosen, changed)
