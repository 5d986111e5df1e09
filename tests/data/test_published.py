"""Rows of published datasets' exact columns are read by the lines of docs/data.md, as they are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmalign.core.types import Audio
from mmalign.data import data_sources
from mmalign.data.lazy_media import require_files
from mmalign.media.audio import write_audio
from tests.data.archives import png
from tests.data.conversations import assistant, jsonl, parquet, user
from tests.docs.blocks import named_blocks

LINES: dict[str, dict[str, Any]] = yaml.safe_load(named_blocks("data.md")["published.yml"])
Read = Callable[[str, str], Any]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def rows(name: str, path: str) -> Any:
        source = data_sources.build({**LINES[name], "path": path}, "data", relative_to=tmp_path)
        read_rows = source.training_items()
        require_files(read_rows)
        return read_rows

    return rows


def picture(number: int) -> dict[str, Any]:
    return {"bytes": png(number), "path": f"{number}.png"}


def write_csv(path: Path, *rows: dict[str, Any]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_ultrafeedback_binarized(read: Read, tmp_path: Path) -> None:
    chosen, rejected = ([user("Why?"), assistant(answer)] for answer in ("Because.", "No."))
    row = {"prompt": "Why?", "prompt_id": "f0", "chosen": chosen, "rejected": rejected, "messages": chosen}
    file = parquet(tmp_path / "a.parquet", {**row, "score_chosen": 8.5, "score_rejected": 3.0})
    (pair,) = read("ultrafeedback_binarized", file)
    assert (pair.prompt.text, pair.prompt.messages, pair.chosen, pair.rejected) == ("Why?", (), "Because.", "No.")
    assert pair.prompt.meta["score_chosen"] == 8.5


def test_hh_rlhf(read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asks = "\n\nHuman: Hi: there\n\nAssistant: Hello.\n\nHuman: And now?\n\nAssistant:"
    rows = [{"chosen": f"{asks} Well.", "rejected": f"{asks} No."}, {"chosen": f"{asks} Well.", "rejected": asks}]
    (pair,) = read("hh-rlhf", jsonl(tmp_path / "a.jsonl", *rows))
    assert list(pair.prompt.messages) == [user("Hi: there"), assistant("Hello."), user("And now?")]
    assert (pair.prompt.text, pair.chosen, pair.rejected) == ("And now?", "Well.", "No.")
    assert "skip_bad: 1 rows and files are left out, 1 rows stay" in caplog.text and "a.jsonl:2" in caplog.text


def test_rlaif_v(read: Read, tmp_path: Path) -> None:
    row = {"ds_name": "d", "image": picture(9), "question": "What?", "chosen": "A cat.", "rejected": "A dog."}
    more = {"origin_dataset": "coco", "origin_split": "{}", "idx": 3, "image_path": "x/9.png"}
    (pair,) = read("RLAIF-V", parquet(tmp_path / "a.parquet", {**row, **more}))
    assert (pair.prompt.text, pair.chosen, pair.prompt.meta["idx"]) == ("What?", "A cat.", 3)
    assert pair.prompt.media["image"].shape[0] == 3 and "image" not in pair.prompt.meta


def test_pick_a_pic(read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def row(label: float, has_label: bool) -> dict[str, Any]:
        sides = {f"{name}_{i}": f"{name}{i}" for name in ("model", "image_uid", "image_url") for i in (0, 1)}
        labels = {"label_0": label, "label_1": 1 - label, "has_label": has_label, "are_different": True}
        return {"caption": "a lamp", "jpg_0": png(1), "jpg_1": png(2), **labels, **sides, "user_id": 7}

    rows = read("pickapic_v2", parquet(tmp_path / "a.parquet", row(1.0, True), row(0.0, True), row(0.5, False)))
    assert len(rows) == 2 and "1 of 3 comparisons have no verdict ('has_label' is false)" in caplog.text
    first, second = rows
    assert torch.equal(first.chosen, second.rejected) and torch.equal(first.rejected, second.chosen)


def test_hpd_v2(read: Read, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    row = {"prompt": "a lamp", "image_path": ["1.png", "2.png"], "human_preference": [0, 1], "user_hash": "u"}
    (pair,) = read("HPDv2", jsonl(tmp_path / "a.jsonl", row))
    (same,) = read("HPDv2", jsonl(tmp_path / "b.jsonl", {**row, "human_preference": [1, 0]}))
    assert torch.equal(pair.chosen, same.rejected) and pair.prompt.text == "a lamp"


def test_captions_of_sounds(read: Read, tmp_path: Path) -> None:
    music = {"ytid": "-0", "start_s": 30, "end_s": 40, "audioset_positive_labels": "/m/1", "aspect_list": "['slow']"}
    (prompt,) = read("MusicCaps", write_csv(tmp_path / "m.csv", {**music, "caption": "slow piano", "author_id": 4}))
    assert prompt.text == "slow piano" and prompt.meta["ytid"] == "-0"
    heard = {"audiocap_id": 9, "youtube_id": "r1", "start_time": 130, "caption": "a dog barks"}
    (prompt,) = read("AudioCaps", write_csv(tmp_path / "a.csv", heard))
    assert prompt.text == "a dog barks" and prompt.meta["start_time"] == "130"
    write_audio(torch.zeros(1, 800), 8_000, tmp_path / "rain.wav")
    captions = {f"caption_{i}": f"rain {i}" if i < 5 else "" for i in range(1, 6)}
    (prompt,) = read("Clotho", write_csv(tmp_path / "c.csv", {"file_name": "rain.wav", **captions}))
    assert prompt.text == "Describe the sound." and isinstance(prompt.media["audio"], Audio)
    assert prompt.meta["references"] == ["rain 1", "rain 2", "rain 3", "rain 4"]


def test_captions_and_boxes_of_pictures(read: Read, tmp_path: Path) -> None:
    row = {"question_id": "1", "image": picture(5), "question": "Describe it."}
    (prompt,) = read("COCO", parquet(tmp_path / "c.parquet", {**row, "answer": ["a cat", "one cat"], "id": 3}))
    assert prompt.text == "Describe it." and prompt.meta["references"] == ["a cat", "one cat"]
    assert prompt.media["image"].shape[0] == 3
    boxed = {**row, "answer": ["the left cat"], "segmentation": [1.0, 2.0], "bbox": [1.0, 2.0, 3.0, 4.0], "iscrowd": 0}
    (prompt,) = read("RefCOCO", parquet(tmp_path / "r.parquet", {**boxed, "file_name": "5.jpg"}))
    assert prompt.text == "the left cat" and prompt.meta["boxes"] == [1.0, 2.0, 3.0, 4.0]


def test_key_points(read: Read, tmp_path: Path) -> None:
    from mmalign.rewards.points.described import Described

    points = {"prompt_points": ["Counting"], "prompt_points_des": ["there are two lamps"]}
    row = {"ind": 0, "language": "en", "prompt": "two lamps", **points}
    (prompt,) = read("T2I-Keypoints-Eval", parquet(tmp_path / "a.parquet", row))
    (point,) = Described()(prompt)
    assert point.point == "counting"


def test_spider(read: Read, tmp_path: Path) -> None:
    tokens = {"query_toks": ["SELECT"], "query_toks_no_value": ["select"], "question_toks": ["How"]}
    row = {"db_id": "concert", "query": "SELECT count(*) FROM singer", "question": "How many?", **tokens}
    (prompt,) = read("Spider", parquet(tmp_path / "a.parquet", row))
    assert (prompt.text, prompt.meta["target"], prompt.meta["db_id"]) == ("How many?", row["query"], "concert")


def test_every_line_of_the_page_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in LINES if f"read({json.dumps(name)}, " not in text]
