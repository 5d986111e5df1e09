"""How well the boxes in an answer cover the true ones: intersection over union, one to one (grounding, detection)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from mmalign.core.options import AtLeastOne, NotNegative, Share
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.rewards.boxes._coordinates import Frame, Layout, Size, corners, extent, moved, size_in
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.columns import plain_data
from mmalign.rewards.functional import match_boxes, valid_boxes
from mmalign.rewards.functional.matching import Matched, Overlap
from mmalign.rewards.parsing import FoundBox, Unreadable, Where, Writing, answer_of, boxes_in, normalized
from mmalign.rewards.parsing.boxes import BOX_KEYS, LABEL_KEYS

__all__ = ["Iou"]


@dataclass
class Iou(RowRule):
    """Σ overlap of matched boxes / max(predicted, true), in [0, 1] (`functional.match_boxes`).

    A box is finite, ordered (x1 < x2, y1 < y2) and inside its frame: nothing is swapped or clipped to make it one,
    and one that is not makes the answer PARSE_FAIL, as do no box and too many. `parts`: the mean `iou` of matched
    pairs, `precision` and `recall` at IoU 0.5, `surplus` of predicted over true boxes.

    How models write, and who says so:

    | model | options | source |
    |---|---|---|
    | Qwen2-VL | frame: per_mille | its makers in QwenLM/Qwen3-VL, issue 866 |
    | Qwen2.5-VL | frame: pixel, seen_size: column | issues 676 and 866 there: pixels "after processer", as resized |
    | Qwen3-VL | frame: per_mille | its README ("relative position coordinates") and cookbooks (of 1000) |
    | InternVL | frame: per_mille | OpenGVLab/InternVL, eval/refcoco/evaluate_grounding.py |
    | Gemini | frame: per_mille, layout: yxyx | cloud.google.com, Vertex AI, "Bounding box detection" |
    | PaliGemma | nothing: its tokens say it | google-research/big_vision, proj/paligemma: 1024 steps |
    | Florence-2 | nothing: its tokens say it | transformers, Florence2PostProcessor: 1000 bins |

    Args:
        column: of `Prompt.meta`: one box, a list of boxes, or of {"bbox": […], "label": …}; also as JSON text, which
            is what a CSV file holds.
        frame: of the answers: pixel, unit (0 to 1) or per_mille (0 to 1000).
        layout: of the answers.
        truth_frame: of the column.
        truth_layout: of the column.
        size: column with the picture's [width, height]; needed where one side is in pixels and the other is not.
        seen_size: column with the [width, height] that the model saw, where that is not `size`.
        writing: how answers write boxes, see `parsing.boxes_in`.
        where: the answer stands, see `parsing.answer_of`.
        kind: iou, giou, diou or ciou, the last three moved to [0, 1].
        threshold: pairs of a lower IoU count nothing.
        labels: pairs count only where their labels are equal.
        invalid: an invalid box is a `fail` of the whole answer, or a `miss`: predicted, and matched to nothing.
        tolerance: by how much of the frame's side a box may stand over its edge.
        most: boxes read.
    """

    column: str = "boxes"
    frame: Frame = "pixel"
    layout: Layout = "xyxy"
    truth_frame: Frame = "pixel"
    truth_layout: Layout = "xyxy"
    size: str = "size"
    seen_size: str = ""
    writing: Writing = "auto"
    where: Where = "auto"
    kind: Overlap = "iou"
    threshold: Share = 0.0
    labels: bool = False
    invalid: Literal["fail", "miss"] = "fail"
    tolerance: NotNegative = 0.01
    most: AtLeastOne = 300
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        answers = self.frame == "pixel" and self.writing != "loc"
        sized = self.seen_size or answers != (self.truth_frame == "pixel")
        return (self.column, *([self.size] if sized else []), *([self.seen_size] if self.seen_size else []))

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where the true boxes or the sizes of a row cannot be read."""
        size = size_in(prompt.meta.get(self.size), self.size)
        if self.seen_size:
            size_in(prompt.meta.get(self.seen_size), self.seen_size)
        self._truth(prompt.meta[self.column], size)

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The value and parts of one answer."""
        size = size_in(prompt.meta.get(self.size), self.size)
        seen = size_in(prompt.meta.get(self.seen_size), self.seen_size) if self.seen_size else size
        truth, names = self._truth(prompt.meta[self.column], size)
        boxes = boxes_in(answer_of(output, self.where), self.writing)
        if len(boxes) > self.most:
            raise Unreadable(f"the answer has {len(boxes)} boxes; at most {self.most} are read")
        # Where nothing says how large the picture is, the answer's own frame is the common one.
        common = size or extent(self.frame, None) or extent(self.truth_frame, None)
        predicted = self._predicted(boxes, seen, common)
        truth = _moved(truth, extent(self.truth_frame, size), common)
        valid = predicted.isfinite().all(1)
        labels = [box.label for box, sound in zip(boxes, valid.tolist(), strict=True) if sound]
        same = _same_labels(labels, names) if self.labels else None
        matched = match_boxes(predicted[valid], truth, self.kind, self.threshold, same)
        return _scored(matched, len(predicted), len(truth), int(valid.sum()))

    def marked(self, prompt: Prompt, output: str) -> tuple[Float[Tensor, "M 4"], Float[Tensor, "N 4"]]:
        """The true boxes and an answer's, xyxy in shares of the picture's sides, to be drawn; none where none is valid.

        A picture whose size no column tells is as large as `prompt.media["image"]`.

        Raises:
            ValueError: the columns hold no valid box or size.
        """
        height, width = prompt.media["image"].shape[-2:]
        size = size_in(prompt.meta.get(self.size), self.size) or (float(width), float(height))
        seen = size_in(prompt.meta.get(self.seen_size), self.seen_size) if self.seen_size else size
        truth, _ = self._truth(prompt.meta[self.column], size)
        try:
            boxes = boxes_in(answer_of(output, self.where), self.writing)[: self.most]
            predicted = self._predicted(boxes, seen, (1.0, 1.0))
        except Unreadable:
            predicted = truth[:0]
        return _moved(truth, extent(self.truth_frame, size), (1.0, 1.0)), predicted[predicted.isfinite().all(1)]

    def _predicted(self, boxes: Sequence[FoundBox], seen: Size | None, common: Size | None) -> Float[Tensor, "N 4"]:
        """The boxes in the common frame; a row of NaN where a box is invalid (`invalid: miss`)."""
        rows = []
        for number, box in enumerate(boxes):
            frame: Frame = "unit" if box.unit else self.frame
            whole = extent(frame, seen)
            values = corners(torch.tensor([box.values], dtype=torch.float64), "xyxy" if box.unit else self.layout)
            if not bool(valid_boxes(values, whole, self.tolerance * max(whole) if whole else 0.0)):
                if self.invalid == "fail":
                    raise Unreadable(
                        f"box {number}, {list(box.values)}, is not ordered or not inside the {frame} frame"
                    )
                values = torch.full_like(values, float("nan"))
            if box.unit and common is None:
                raise ValueError(f"<loc…> boxes against pixels need the picture's size in Prompt.meta['{self.size}']")
            rows.append(_moved(values, whole, common))
        return torch.cat(rows) if rows else torch.zeros(0, 4, dtype=torch.float64)

    def _truth(self, value: object, size: Size | None) -> tuple[Float[Tensor, "M 4"], list[str | None]]:
        """The true boxes in their own frame, and their labels."""
        value = plain_data(value, self.column)
        if not isinstance(value, dict | list | tuple):
            raise ValueError(f"Prompt.meta['{self.column}'] holds boxes, found {str(value)[:60]!r}")
        single = isinstance(value, dict) or (len(value) == 4 and not isinstance(value[0], list | tuple | dict))
        pairs = [_true_box(box, self.column) for box in ([value] if single else value)]
        boxes = torch.tensor([values for values, _ in pairs], dtype=torch.float64).reshape(-1, 4)
        boxes = corners(boxes, self.truth_layout)
        whole = extent(self.truth_frame, size)
        if not bool(valid_boxes(boxes, whole, self.tolerance * max(whole) if whole else 0.0).all()):
            raise ValueError(f"Prompt.meta['{self.column}'] holds an invalid box for its frame: {str(value)[:100]}")
        return boxes, [label for _, label in pairs]


def _true_box(box: object, column: str) -> tuple[list[float], str | None]:
    values = next((box[key] for key in BOX_KEYS if key in box), None) if isinstance(box, dict) else box
    four = isinstance(values, list | tuple) and len(values) == 4
    if not four or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):  # type: ignore[union-attr]
        raise ValueError(
            f"Prompt.meta['{column}']: a true box is four numbers or an object with one of {', '.join(BOX_KEYS)}; "
            f"found {str(box)[:60]}"
        )
    label = next((str(box[key]) for key in LABEL_KEYS if key in box), None) if isinstance(box, dict) else None
    return [float(v) for v in values], label  # type: ignore[union-attr]


def _moved(boxes: Tensor, source: Size | None, target: Size | None) -> Tensor:
    return boxes if source is None or target is None else moved(boxes, source, target)


def _same_labels(first: Sequence[str | None], second: Sequence[str | None]) -> Tensor:
    one, two = ([normalized(name) if name and name.strip() else None for name in names] for names in (first, second))
    return torch.tensor([[a is not None and a == b for b in two] for a in one]).reshape(len(one), len(two)).bool()


def _scored(matched: Matched, predicted: int, true: int, valid: int) -> Verdict:
    # `match_boxes` divides by the larger count of boxes it saw; invalid ones were predicted too.
    share = max(valid, true) / max(predicted, true) if max(predicted, true) else 1.0
    hits = float((matched.iou >= 0.5).sum())
    return matched.score * share, {
        "iou": float(matched.iou.mean()) if len(matched.iou) else 0.0,
        "precision": hits / predicted if predicted else float(not true),
        "recall": hits / true if true else float(not predicted),
        "surplus": float(predicted - true),
    }
