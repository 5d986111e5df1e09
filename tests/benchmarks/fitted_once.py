"""Seconds of a row of given pictures and songs, brought to what a generator makes: anew each time, in parts, and kept.

Two hundred pictures of 1 to 3 megapixels for 512 x 512, and twenty songs of 3 minutes (44.1 kHz, stereo) of which
windows of 10 seconds at 16 kHz are taken, in a shuffled order.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.data.intake import FittedRows, MediaOptions, PictureTarget
from mmalign.data.sources.captioned import Captioned
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.media.sound_fit import SoundTarget, converted, stretch

PICTURES, SONGS, SECONDS, LOOKS = 200, 20, 180, 60
WHOLE = 4  # windows for which a whole song is decoded and resampled
SOUND = SoundTarget(16_000, 1, 160_000)


def measure() -> dict[str, Any]:
    """By kind: seconds of a row, and the bytes of memory that the kept ones take."""
    with tempfile.TemporaryDirectory() as place:
        return {"pictures": _pictures(Path(place)), "songs": _songs(Path(place), "flac")}


def _pictures(place: Path) -> dict[str, Any]:
    names = list[str]()
    for number in range(PICTURES):
        side = 1000 + 4 * number  # 1.0 to 3.2 megapixels
        coarse = torch.rand(1, 3, 60, 60)
        write_image(
            torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0], place / f"{number}.jpg"
        )
        names.append(f"{number}.jpg")
    rows = _rows(place / "pictures.jsonl", names)
    order = torch.randperm(PICTURES).tolist()
    anew = FittedRows(rows, PictureTarget((512, 512)), MediaOptions(fitted_gib=0))
    kept = FittedRows(rows, PictureTarget((512, 512)), MediaOptions())
    return {
        "anew": _seconds(anew.at, order),
        "kept, first pass": _seconds(kept.at, order),
        "kept, later pass": _seconds(kept.at, order),
        "kept_bytes": kept._recent.bytes,
    }


def _songs(place: Path, suffix: str) -> dict[str, Any]:
    names = list[str]()
    for number in range(SONGS):
        write_audio(0.3 * torch.randn(2, 44_100 * SECONDS), 44_100, place / f"{number}.{suffix}")
        names.append(f"{number}.{suffix}")
    rows = _rows(place / f"{suffix}.jsonl", names)
    nothing, kept = (FittedRows(rows, SOUND, MediaOptions(cut="windows", fitted_gib=gib)) for gib in (0.0, 1.0))
    order = torch.randperm(len(kept)).tolist()

    def whole(index: int) -> torch.Tensor:
        window = nothing.windows[index]
        sound = nothing.rows[window.row].output
        return stretch(converted(sound.samples[0], sound.rate, SOUND), window.start, SOUND.samples)

    return {
        "windows": len(kept),
        "whole song each time": _seconds(whole, order[:WHOLE]),
        "nothing kept": _seconds(nothing.at, order[:LOOKS]),
        "kept, first pass": _seconds(kept.at, order[:LOOKS]),
        "kept, later pass": _seconds(kept.at, order[:LOOKS]),
        "kept_bytes": kept._recent.bytes,
    }


def _rows(path: Path, names: Sequence[str]) -> Any:
    path.write_text("".join(json.dumps({"text": name, "file": name}) + "\n" for name in names))
    return Captioned(str(path)).training_items()


def _seconds(look: Callable[[int], Any], order: Sequence[int]) -> float:
    begin = time.perf_counter()
    for at in order:
        look(at)
    return round((time.perf_counter() - begin) / len(order), 5)
