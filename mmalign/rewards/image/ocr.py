"""Does a picture show the text that was asked for? Read by PP-OCR (RapidOCR), whose weights come in the package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch

from mmalign.core.errors import MissingExtra
from mmalign.core.options import AtLeastOne, Share
from mmalign.core.packages import stamp_of
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.loading.exclusive import loading
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.columns import references_of
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.functional.edit_distance import text_similarity, words_similarity
from mmalign.rewards.parsing.text import normalized

__all__ = ["Ocr"]

_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|«([^»]+)»')


@dataclass
class Ocr(RowRule):
    """1 - edit distance / the longer length of what is read in the picture and what was asked, in [0, 1].

    Flow-GRPO's reward of text rendering (2505.05470, sec. 4.1) divides by the asked text alone and takes text that was
    not asked for as no fault where the asked one is among it; here all that is drawn counts. Case and closing marks do
    not count, blanks do not either. A picture without text scores 0 where some was asked for. `parts`: `words`, the
    number of words read, and `confidence`, the reader's own mean over them.

    Args:
        column: of `Prompt.meta`: the text that is to be drawn, or several that are equally right; "" takes what stands
            in double quotes in the prompt, and a row without any is NOT_APPLICABLE.
        order: `reading`: lines from the top, each from the left; `any`: words in any order, each with at most one.
        confidence: what the reader is less sure of does not count as read.
        side: pixels that the shorter side of a picture is enlarged to before text is looked for; fewer is faster and
            misses small letters.
    """

    column: str = ""
    order: Literal["reading", "any"] = "reading"
    confidence: Share = 0.5
    side: AtLeastOne = 480
    modalities = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True
    packages: ClassVar[dict[str, str]] = {"rapidocr": "ocr", "onnxruntime": "ocr"}

    @property
    def needs(self) -> tuple[str, ...]:
        """The column without which a row is NOT_APPLICABLE."""
        return (self.column,) if self.column else ()

    @cached_property
    def reader(self) -> Any:
        """The package's own. MissingExtra where it is not installed."""
        try:
            import onnxruntime  # noqa: F401
            from rapidocr import RapidOCR
        except (ImportError, OSError):
            raise MissingExtra("reward ocr (package rapidocr)", "ocr") from None
        options = {
            "Global.log_level": "error",
            "Det.limit_side_len": self.side,
            "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads(),
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
        with preserve_rng_state(), loading():
            return RapidOCR(params=options)

    def prepare(self) -> None:
        """Load the reader."""
        _ = self.reader

    def fingerprint(self) -> str:
        """The version of the package, which holds the weights."""
        return stamp_of("rapidocr")

    def judge(self, prompt: Prompt, output: Tensor) -> Verdict:
        """The verdict on one picture (3, H, W)."""
        targets = references_of(prompt, self.column) if self.column else _quoted(prompt.text)
        if not targets:
            return None
        lines = self.read(output)
        words = [word for line, _ in lines for word in _plain(line).split()]
        values = [self._agreement(_plain(text).split(), words) for text in targets]
        sure = [confidence for _, confidence in lines]
        return max(values), {"words": len(words), "confidence": sum(sure) / len(sure) if sure else float("nan")}

    def read(self, picture: Tensor) -> list[tuple[str, float]]:
        """The texts in a picture (3, H, W) of floats in [0, 1], in reading order, each with the reader's confidence."""
        pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).flip(2)  # blue first
        result = self.reader(pixels.contiguous().cpu().numpy(), use_cls=False)
        if result.txts is None:
            return []
        sides = [(box[:, 0].min(), box[:, 1].mean(), box[:, 1].max() - box[:, 1].min()) for box in result.boxes]
        boxes = [(float(left), float(middle), float(height)) for left, middle, height in sides]
        order = _reading_order(boxes)
        kept = [(result.txts[i], float(result.scores[i])) for i in order]
        return [(text, confidence) for text, confidence in kept if confidence >= self.confidence]

    def _agreement(self, target: list[str], read: list[str]) -> float:
        if self.order == "any":
            return words_similarity(target, read)
        return text_similarity("".join(target), "".join(read))


def _plain(text: str) -> str:
    return normalized(text) if text.strip() else ""


def _quoted(text: str) -> list[str]:
    """What stands in double quotes, as one text."""
    parts = ["".join(groups) for groups in _QUOTED.findall(text)]
    return [" ".join(parts)] if parts else []


def _reading_order(boxes: list[tuple[float, float, float]]) -> list[int]:
    """Boxes (left, middle, height) line by line from the top, each line from the left."""
    lines: list[list[int]] = []
    for i in sorted(range(len(boxes)), key=lambda i: boxes[i][1]):
        above = lines[-1][0] if lines else None
        if above is not None and boxes[i][1] - boxes[above][1] < 0.5 * max(boxes[i][2], boxes[above][2]):
            lines[-1].append(i)
        else:
            lines.append([i])
    return [i for line in lines for i in sorted(line, key=lambda i: boxes[i][0])]
