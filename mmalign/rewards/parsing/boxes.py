"""Boxes as models write them.

| writing | example | used by |
|---|---|---|
| json | `[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}]`, `[10, 20, 30, 40]` | Qwen2.5-VL, Qwen3-VL, Gemini |
| tags | `<ref>cat</ref><box>[[10, 20, 30, 40]]</box>`, `<|box_start|>(1,2),(3,4)<|box_end|>` | InternVL, Qwen-VL |
| loc | `<loc0256><loc0128><loc0768><loc0512> cat`: y1 x1 y2 x2 in 1/1024 | PaliGemma |
| loc | `cat<loc_128><loc_256><loc_512><loc_768>`: x1 y1 x2 y2, middles of thousandths | Florence-2 |
| brackets | four numbers in brackets anywhere in prose | everything else |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mmalign.rewards.parsing.json_values import json_values
from mmalign.rewards.parsing.text import LONG, Unreadable, bounded

Writing = Literal["auto", "json", "tags", "loc", "brackets"]
BOX_KEYS = ("bbox_2d", "box_2d", "bbox", "box", "Position", "position")
LABEL_KEYS = ("label", "name", "category", "class")

_NUMBER = r"[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,4})?"
_ODD = r"[-+]?(?:nan|inf|infinity)"
_PLAIN = re.compile(rf"\s*(?:{_NUMBER}|{_ODD})\s*", re.IGNORECASE | re.ASCII)
_BRACKETS = re.compile(r"[\[(]([^\[\]()]{1,200})[\])]")
_SPECIAL = re.compile(r"<(ref|box|\|object_ref_start\||\|box_start\|)>")
_END = {"ref": "</ref>", "box": "</box>", "|object_ref_start|": "<|object_ref_end|>", "|box_start|": "<|box_end|>"}
_SEPARATORS = re.compile(r"[\s\[\](),;]+")
_LOC = re.compile(r"<loc(\d{1,4})>", re.ASCII)
_LOC_STEPS = 1024
# Florence-2's tokens, of 1000 bins whose middle is meant (transformers' Florence2PostProcessor.dequantize).
_BIN = re.compile(r"([^<>]*)((?:<loc_\d{1,3}>)+)", re.ASCII)
_BINS = 1000


@dataclass(frozen=True)
class FoundBox:
    """Four numbers as they were written; `unit` is True where the writing itself fixes xyxy in [0, 1]."""

    values: tuple[float, float, float, float]
    label: str | None = None
    unit: bool = False


def boxes_in(text: str, writing: Writing = "auto") -> list[FoundBox]:
    """Every box in an answer, unchecked; [] only where an empty JSON array says so.

    Raises:
        Unreadable: no box, or something that only looks like one.
    """
    text = bounded(text, LONG)
    if writing == "auto":
        return _any(text)
    return _READERS[writing](text)


def _any(text: str) -> list[FoundBox]:
    if "<loc" in text:
        return _loc(text)
    if _SPECIAL.search(text):
        return _tags(text)
    try:
        return _json(text)
    except Unreadable:
        return _brackets(text)


def _json(text: str) -> list[FoundBox]:
    values = json_values(text)
    if values == [[]] or (len(values) == 1 and isinstance(values[0], dict) and list(values[0].values()) == [[]]):
        return []
    return _some([box for value in values for box in _walk(value)], "JSON")


def _walk(value: object, label: str | None = None) -> Iterator[FoundBox]:
    if isinstance(value, dict):
        name = next((str(value[key]) for key in LABEL_KEYS if key in value), label)
        boxed = [value[key] for key in BOX_KEYS if key in value]
        for part in boxed or [v for v in value.values() if isinstance(v, dict | list)]:
            yield from _walk(part, name)
    elif isinstance(value, list) and value and not any(isinstance(v, dict | list) for v in value):
        yield FoundBox(_four([_real(v) for v in value]), label)
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part, label)
    else:
        raise Unreadable(f"expected boxes, found {str(value)[:60]}")


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"a coordinate is a number, found {str(value)[:60]}")
    return _float(value)


def _float(value: str | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _tags(text: str) -> list[FoundBox]:
    boxes, label, at = [], None, 0
    while (start := _SPECIAL.search(text, at)) is not None:
        kind = start[1]
        end = text.find(_END[kind], start.end())
        if end < 0:
            raise Unreadable(f"{start[0]} is never closed")
        inside, at = text[start.end() : end], end + len(_END[kind])
        if "ref" in kind:
            label = inside.strip()
            continue
        parts = [part for part in _SEPARATORS.split(inside) if part]
        if not parts or len(parts) % 4 or not all(_PLAIN.fullmatch(part) for part in parts):
            raise Unreadable(f"{start[0]} holds no box: {inside.strip()[:60]}")
        numbers = [_float(part) for part in parts]
        boxes += [FoundBox(_four(numbers[i : i + 4]), label) for i in range(0, len(numbers), 4)]
    return _some(boxes, "tags")


def _loc(text: str) -> list[FoundBox]:
    if "<loc_" in text:
        return _bins(text)
    steps = [(int(m[1]), m.end()) for m in _LOC.finditer(text)]
    if not steps or len(steps) % 4:
        raise Unreadable(f"a box is four <loc…> tokens, found {len(steps)}")
    boxes = []
    for i in range(0, len(steps), 4):
        y1, x1, y2, x2 = (step / _LOC_STEPS for step, _ in steps[i : i + 4])
        label = text[steps[i + 3][1] :].partition("<")[0].strip(" ;\n") or None
        boxes.append(FoundBox((x1, y1, x2, y2), label, unit=True))
    return boxes


def _bins(text: str) -> list[FoundBox]:
    boxes = []
    for run in _BIN.finditer(text):
        at = [(int(number) + 0.5) / _BINS for number in re.findall(r"\d+", run[2])]
        if len(at) % 4:
            raise Unreadable(f"a box is four <loc_…> tokens, found {len(at)}")
        label = run[1].strip(" ;,\n") or None
        boxes += [FoundBox(_four(at[i : i + 4]), label, unit=True) for i in range(0, len(at), 4)]
    return _some(boxes, "loc")


def _brackets(text: str) -> list[FoundBox]:
    inside = [m[1].split(",") for m in _BRACKETS.finditer(text)]
    fours = [parts for parts in inside if len(parts) == 4 and all(_PLAIN.fullmatch(p) for p in parts)]
    return _some([FoundBox(_four([_float(p) for p in parts])) for parts in fours], "brackets")


def _four(numbers: list[float]) -> tuple[float, float, float, float]:
    if len(numbers) != 4:
        raise Unreadable(f"a box is four numbers, found {len(numbers)}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _some(boxes: list[FoundBox], where: str) -> list[FoundBox]:
    if not boxes:
        raise Unreadable(f"no box in the answer (read as {where})")
    return boxes


_READERS = {"json": _json, "tags": _tags, "loc": _loc, "brackets": _brackets}
