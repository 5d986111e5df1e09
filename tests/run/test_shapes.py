"""Compared pictures and sounds of another size, rate, length or channels are named before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmalign.core.errors import DataError
from mmalign.data.preferences import Preferences
from mmalign.run.checks.shapes import alike, native_size
from tests.media import odd


def pairs(folder: Path, contents: list[bytes], suffix: str) -> Any:
    rows = []
    for i, content in enumerate(contents):
        (folder / f"{i}{suffix}").write_bytes(content)
        rows.append({"prompt": f"q{i}", "chosen": f"{i}{suffix}", "rejected": f"0{suffix}"})
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Preferences(str(folder / "p.jsonl")).training_items()


def test_pictures_are_held_to_the_runs_size(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=size) for size in ((64, 64), (65, 65), (64, 32))], ".png")
    scenes = SimpleNamespace(model="assets/scenes_sd3", height=None, width=None, resolution=None)
    assert native_size(scenes) == (64, 64)
    with pytest.raises(DataError) as caught:
        alike(scenes, items)
    told = str(caught.value).split("\n")
    assert told[0].endswith(":2, 'chosen': a picture of 65 x 65 (width x height), but the run makes 64 x 64.")
    assert "p.jsonl:3, 'chosen': a picture of 64 x 32" in told[1] and len(told) == 2
    scenes.resolution = 65
    with pytest.raises(DataError, match=r"p\.jsonl:1, 'chosen': a picture of 64 x 64 .* the run makes 65 x 65"):
        alike(scenes, items)
    with pytest.raises(DataError, match=r"p\.jsonl:2, 'chosen': .* but most others are 64 x 64"):
        alike(SimpleNamespace(model="elsewhere/unknown"), items)


def test_more_than_twenty_are_counted(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=(64, 64)), *[odd.picture(size=(17, 17))] * 30], ".png")
    with pytest.raises(DataError, match=r"… and 10 more\."):
        alike(SimpleNamespace(model="assets/scenes_sd3"), items)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ({"rate": 22_050}, "a sound at 22050 Hz, but most others are at 8000 Hz; resample it"),
        ({"channels": 3}, "a sound of 3 channels, but most others are of 1; mix it"),
        ({"seconds": 4}, r"a sound of 4 s, but the run makes 3 s; raise adapter\.seconds, or cut it"),
    ],
)
def test_sounds_are_held_to_the_runs_rate_channels_and_length(tmp_path: Path, make: dict[str, int], said: str) -> None:
    items = pairs(tmp_path, [odd.sound(), odd.sound(**make)], ".wav")
    with pytest.raises(DataError, match=rf"p\.jsonl:2, 'chosen': {said}"):
        alike(SimpleNamespace(model="", seconds=3.0), items)


def test_what_is_alike_passes(tmp_path: Path) -> None:
    alike(SimpleNamespace(model="assets/scenes_sd3"), pairs(tmp_path, [odd.picture(size=(64, 64))] * 3, ".png"))
    alike(SimpleNamespace(model="", seconds=2.0), pairs(tmp_path, [odd.sound()] * 3, ".wav"))
    alike(SimpleNamespace(), [])
