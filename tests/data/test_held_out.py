"""What is measured was never trained on: the same picture, sound or text is on one side."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.data.held_out import shared_with_training
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.data.sources.scenes import Scenes
from tests.media import odd


def pictures(folder: Path, count: int, first: int = 0) -> list[str]:
    """Small files, each other than all others."""
    names = []
    for i in range(first, first + count):
        (folder / f"{i}.png").write_bytes(odd.encoded(Image.fromarray(np.full((4, 4, 3), i, np.uint8)), "PNG"))
        names.append(f"{i}.png")
    return names


def table(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def seen(items: object) -> set[str]:
    return {str(origin) for p in items for origin, _ in getattr(p, "prompt", p).media.origins()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("asked", [["describe it"], ["describe it", "how many?"]])
def test_one_instruction_about_many_pictures_is_split_by_picture(tmp_path: Path, asked: list[str]) -> None:
    rows = [{"prompt": text, "image": name} for name in pictures(tmp_path, 60) for text in asked]
    source = Prompts(table(tmp_path / "p.jsonl", rows), image="image", held_out=0.2)
    train, aside = source.training_items(), source.held_out_items()
    assert (len(train), len(aside)) == (48 * len(asked), 12 * len(asked))
    assert not seen(train) & seen(aside)
    pairs = table(tmp_path / "q.jsonl", [{**row, "chosen": "a", "rejected": "b"} for row in rows])
    liked = Preferences(pairs, image="image", held_out=0.2, outputs="text")
    assert seen(liked.held_out_items()) == seen(aside)  # by the same hash


def test_a_picture_under_two_names_is_one_picture(tmp_path: Path) -> None:
    names = pictures(tmp_path, 20)
    for name in names:
        (tmp_path / f"copy_{name}").write_bytes((tmp_path / name).read_bytes())
    rows = [{"prompt": f"q{i}", "image": each} for i, name in enumerate(names) for each in (name, f"copy_{name}")]
    source = Prompts(table(tmp_path / "p.jsonl", rows), image="image", held_out=0.5)
    train, aside = ({p.text for p in side} for side in (source.training_items(), source.held_out_items()))
    assert len(aside) == 10 and not train & aside


def test_rows_that_share_a_sound_or_a_picture_stay_together(tmp_path: Path) -> None:
    names = pictures(tmp_path, 8)
    for i in range(8):
        (tmp_path / f"{i}.wav").write_bytes(odd.sound(seconds=0.1 + i / 100))
    chain = [{"prompt": "q", "image": names[i], "audio": f"{j}.wav"} for i in range(4) for j in (i, (i + 1) % 4)]
    apart = [{"prompt": "q", "image": names[i], "audio": f"{i}.wav"} for i in range(4, 8)]
    file = table(tmp_path / "p.jsonl", chain + apart)
    source = Prompts(file, image="image", audio="audio", held_out=0.4)
    assert not seen(source.training_items()) & seen(source.held_out_items())
    assert {len(source.training_items()), len(source.held_out_items())} <= {2, 10, 3, 9, 4, 8}


def test_only_what_is_really_trained_on_is_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = table(tmp_path / "a.jsonl", [{"prompt": "describe", "image": n} for n in pictures(tmp_path, 5)])
    (tmp_path / "other").mkdir()
    others = pictures(tmp_path / "other", 5, first=50)
    aside = table(tmp_path / "other" / "b.jsonl", [{"prompt": "describe", "image": n} for n in others])
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        Prompts(train, image="image", held_out_path=aside).held_out_items()
        assert not caplog.text
        (tmp_path / "other" / "51.png").write_bytes((tmp_path / "3.png").read_bytes())
        Prompts(train, image="image", held_out_path=aside).held_out_items()
    assert "1 of 5 held-out pictures of" in caplog.text


def test_drawn_pictures_are_told_apart_by_what_they_show() -> None:
    drawn = Scenes(count=4, held_out=3)
    asked = {prompt.text for prompt in drawn.training_items()}
    assert asked == {prompt.text for prompt in drawn.held_out_items()}  # one question about all pictures
    assert shared_with_training(drawn, drawn.held_out_items()) == (0, 3)
    assert shared_with_training(drawn, drawn.training_items()[1:]) == (3, 3)
