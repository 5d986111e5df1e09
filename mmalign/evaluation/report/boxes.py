"""A picture with the boxes that an answer names, beside the true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from mmalign.core.types import Prompt
from mmalign.rewards.boxes.iou import Iou

TRUE, ANSWERED = "#0b7a4b", "#e8590c"

Draw = Callable[[Prompt, str, Any], None]


def drawing(run: Mapping[str, Any]) -> Draw | None:
    """How to draw an answer's boxes into a picture, in place; None where no reward `iou` says how to read them.

    Args:
        run: the run file.
    """
    slots = run.get("rewards")
    named = [slot for slot in slots.values() if isinstance(slot, Mapping)] if isinstance(slots, Mapping) else []
    options = next((slot for slot in named if slot.get("name") == "iou"), None)
    if options is None:
        return None
    known = {field.name for field in fields(Iou)}
    reward = Iou(**{key: value for key, value in options.items() if key in known})
    return lambda prompt, answer, picture: _draw(reward, prompt, answer, picture)


def _draw(reward: Iou, prompt: Prompt, answer: str, picture: Any) -> None:
    from PIL import ImageDraw

    if "image" not in prompt.media or reward.column not in prompt.meta:
        return
    try:
        marked = reward.marked(prompt, answer)
    except ValueError:  # the row's boxes fit no picture; its score says so
        return
    pen, width, height = ImageDraw.Draw(picture), picture.width, picture.height
    for boxes, colour in zip(marked, (TRUE, ANSWERED), strict=True):
        for x1, y1, x2, y2 in boxes.tolist():
            left, top = x1 * width, y1 * height
            corners = (left, top, max(left, x2 * width - 1), max(top, y2 * height - 1))
            pen.rectangle(corners, outline=colour, width=max(2, width // 128))
