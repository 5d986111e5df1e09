"""Teach a vision-language model to find things, in Python, part by part.

python -m pipelines.grounding                                          # the embedded model, some minutes on a CPU
python -m pipelines.grounding configs/text/grounding_grpo.yaml data.path=my_boxes.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.cli._faults import faults_told
from mmalign.core.config import load
from mmalign.core.rng import stream
from mmalign.core.types import Prompt
from mmalign.evaluation.report.boxes import drawing
from mmalign.media.image import enlarged, to_pil, write_image
from mmalign.run.build import Parts, build
from mmalign.run.train import held_out
from pipelines._command_line import files_and_changes
from pipelines._written_out import train_between_measurements

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "text" / "grounder.yaml"
SHOWN_PIXELS = 256


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/grounding")) -> list[Any]:
    """Build, measure, train, measure again; leaves pictures with boxes, and the trained weights, in `out`."""
    parts = build(load(config, changes))  # every check of the run file happens here, before any weight is loaded
    parts.load()

    prompts = held_out(parts)[:12]
    show(parts, prompts, out / "before")
    rows = train_between_measurements(parts, {})
    show(parts, prompts, out / "after")
    parts.adapter.save(out / "adapter")  # plain transformers (or peft) loads it
    return rows


def show(parts: Parts, prompts: list[Prompt], folder: Path) -> None:
    """Each picture with the true boxes in green and the answered ones in orange."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = drawing(parts.file.to_dict())
    answers = parts.policy.generate(prompts, stream(0, "boxes")).output
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        picture = enlarged(to_pil(prompt.media["image"]), SHOWN_PIXELS)
        if draw is not None:
            draw(prompt, answer, picture)
        write_image(picture, folder / f"{number:02d}.png")


if __name__ == "__main__":
    (chosen,), changed = files_and_changes(__doc__, [CONFIG])
    with faults_told():
        main(chosen, changed)
