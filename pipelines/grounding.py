"""Teach a vision-language model to find things, in Python, part by part.

python -m pipelines.grounding                                          # the embedded model, some minutes on a CPU
python -m pipelines.grounding configs/text/grounding_grpo.yaml data.path=my_boxes.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.config import load
from mmalign.core.rng import stream
from mmalign.core.types import Prompt
from mmalign.media.image import to_pil, write_image
from mmalign.rewards.parsing import Unreadable, boxes_in
from mmalign.run.build import build
from pipelines._command_line import files_and_changes
from pipelines._written_out import held_out, train_between_measurements

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart" / "text" / "grounder.yaml"
ZOOM = 4


def main(config: Path = CONFIG, changes: tuple[str, ...] = (), out: Path = Path("runs/grounding")) -> list[Any]:
    """Build, measure, train, measure again; leaves pictures with boxes, and the trained weights, in `out`."""
    parts = build(load(config, changes))  # every check of the run file happens here, before any weight is loaded
    parts.load()

    prompts = held_out(parts)[:12]
    draw(parts.policy, prompts, out / "before")
    rows = train_between_measurements(parts, {})
    draw(parts.policy, prompts, out / "after")
    parts.adapter.save(out / "adapter")  # plain transformers (or peft) loads it
    return rows


def draw(policy: Any, prompts: list[Prompt], folder: Path) -> None:
    """Each picture with the true boxes in green and the answered ones in orange, in pixels of the picture."""
    from PIL import ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for number, (prompt, answer) in enumerate(
        zip(prompts, policy.generate(prompts, stream(0, "boxes")).output, strict=True)
    ):
        picture = to_pil(prompt.media["image"])
        picture = picture.resize((picture.width * ZOOM, picture.height * ZOOM))
        pen = ImageDraw.Draw(picture)
        for box in prompt.meta["boxes"]:
            pen.rectangle([side * ZOOM for side in box], outline="green", width=2)
        for box in found(answer):
            pen.rectangle([side * ZOOM for side in box], outline="orange", width=2)
        write_image(picture, folder / f"{number:02d}.png")


def found(answer: str) -> list[tuple[float, float, float, float]]:
    """The boxes in an answer that can be drawn."""
    try:
        boxes = [box.values for box in boxes_in(answer)]
    except Unreadable:
        return []
    return [box for box in boxes if box[0] <= box[2] and box[1] <= box[3]]


if __name__ == "__main__":
    (chosen,), changed = files_and_changes(__doc__, [CONFIG])
    main(chosen, changed)
