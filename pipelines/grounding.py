"""Teach a vision-language model to find things, in Python.

python -m pipelines.grounding                                          # the embedded model, some minutes on a CPU
python -m pipelines.grounding configs/text/grounding_grpo.yaml data.path=my_boxes.jsonl
python -m pipelines.grounding --resume runs/grounding                  # goes on after Ctrl-C

Leaves a run directory (checkpoints that plain transformers or peft load, samples, a report) and in it `boxes/before`
and `boxes/after`: held-out pictures with the true boxes in green and the answered ones in orange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mmalign
from pipelines._command_line import given, same_file
from pipelines._printing import tell

if TYPE_CHECKING:
    from mmalign.run.train import Finished

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "text" / "grounder.yaml"
OUT = Path("runs/grounding")
SHOWN, SHOWN_PIXELS = 12, 256


def main(config: Path = CONFIG, changes: Sequence[str] = (), out: Path = OUT, resume: Path | None = None) -> Finished:
    """Check, measure, train, measure again; leaves pictures with boxes in the run directory."""
    finished = mmalign.train(same_file(resume, config), changes, out=None if resume else out, resume=resume)
    if finished.rows:  # measured on held-out pictures
        for when in ("before", "after"):
            show(finished, when)
    return finished


def show(finished: Finished, when: str) -> None:
    """The first held-out pictures with the boxes that were answered when it was measured."""
    from mmalign.evaluation.records import Evaluation
    from mmalign.evaluation.report.boxes import drawing
    from mmalign.media.image import enlarged, to_pil, write_image

    folder, draw = finished.directory.path / "boxes" / when, drawing(finished.parts.file.to_dict())
    folder.mkdir(parents=True, exist_ok=True)
    measured = Evaluation.load(finished.directory.evaluation(when))
    for number, (prompt, answer) in enumerate(list(zip(measured.prompts, measured.outputs, strict=True))[:SHOWN]):
        if number not in measured.prompt_pictures:
            continue  # of the first ones only pictures are kept
        picture = enlarged(to_pil(measured.prompt_pictures[number]), SHOWN_PIXELS)
        if draw is not None:
            draw(replace(prompt, media={"image": measured.prompt_pictures[number]}), answer, picture)
        write_image(picture, folder / f"{number:02d}.png")


if __name__ == "__main__":
    prompt_pictures = given(__doc__, [CONFIG], OUT)
    with mmalign.errors_as_sentences():
        tell(main(prompt_pictures.files[0], prompt_pictures.changes, prompt_pictures.out, prompt_pictures.resume))
