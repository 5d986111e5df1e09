"""Comparisons of texts, pictures and sound, decoded when indexed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.errors import DataError, MediaError
from mmalign.core.types import Audio
from mmalign.data.lazy_media import require_files
from mmalign.data.sources.preferences import Preferences
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from tests.media import odd


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "q", "chosen": "yes.", "rejected": "no.", "source": "me"})
    (pair,) = Preferences(file).training_items()
    assert (pair.prompt.text, pair.chosen, pair.rejected, pair.prompt.meta) == ("q", "yes.", "no.", {"source": "me"})


def test_pictures_are_read_when_indexed_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "img" / "a.png")
    write_image(torch.full((3, 4, 4), 0.4), tmp_path / "img" / "b.png")
    row = {"prompt": "q", "chosen": "img/a.png", "rejected": "img/b.png"}
    file = write(tmp_path / "p.jsonl", row, {**row, "prompt": "r", "chosen": "img/gone.png"})
    pairs = Preferences(file).training_items()
    torch.testing.assert_close(pairs[0].rejected, torch.full((3, 4, 4), 0.4))
    assert len(pairs) == 2 and len(pairs[1:]) == 1 and pairs[-2].prompt.text == "q"
    with pytest.raises(DataError, match=r"p\.jsonl:2, 'chosen': .*gone\.png cannot be read \(No such file"):
        pairs[1]
    (tmp_path / "img" / "gone.png").write_bytes(b"")
    with pytest.raises(MediaError, match=r"gone\.png \(named in .*p\.jsonl:2, 'chosen'\): the file is empty"):
        pairs[1]


def test_files_and_cells_are_looked_for_before_anything_is_decoded(tmp_path: Path) -> None:
    whole = odd.picture(size=(40, 40))
    half = len(whole) // 2
    (tmp_path / "a.png").write_bytes(whole[:half] + bytes(4) + whole[half + 4 :])  # of files, headers and ends are read
    (tmp_path / "junk.png").write_bytes(b"junk")
    row = {"prompt": "q", "chosen": "a.png", "rejected": "a.png", "seen": "a.png"}
    bad = [{**row, "chosen": "gone.png"}, {**row, "rejected": None}, {**row, "seen": "none.png"}, {**row, "seen": None}]
    bad.append({**row, "chosen": "junk.png"})
    file = write(tmp_path / "p.jsonl", row, *bad)
    pairs = Preferences(file, image="seen").training_items()
    with pytest.raises(DataError) as caught:
        require_files(pairs)
    told = str(caught.value).split("\n")
    assert told[0] == f"{file}:2, 'chosen': {tmp_path}/gone.png cannot be read (No such file or directory)."
    assert told[1] == f"{file}:3, 'rejected': expected the path of a file, got None."
    assert told[2] == f"{file}:4: {tmp_path}/none.png cannot be read (No such file or directory)."
    assert told[3] == f"{file}:5: 'seen' is missing; every row needs its picture."
    assert told[4].startswith(f"{tmp_path}/junk.png (named in {file}:6, 'chosen'): Pillow ") and len(told) == 5
    texts = write(tmp_path / "t.jsonl", {"prompt": "q", "chosen": "x", "rejected": "y"}, {"prompt": "q", "chosen": ""})
    with pytest.raises(DataError, match=r"(?s)t\.jsonl:2: 'chosen' is empty.*t\.jsonl:2: 'rejected' is missing"):
        require_files(Preferences(texts).training_items())


def test_picture_bytes_in_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    write_image(torch.full((3, 2, 2), 0.6), tmp_path / "a.png")
    cell = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    table = pyarrow.Table.from_pylist([{"prompt": "q", "chosen": cell, "rejected": cell}])
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    (pair,) = Preferences(str(tmp_path / "p.parquet")).training_items()
    torch.testing.assert_close(pair.chosen, torch.full((3, 2, 2), 0.6))


def test_pictures_of_a_datasets_folder_stay_undecoded_until_indexed(tmp_path: Path) -> None:
    import datasets

    for name, value in (("a", 0.2), ("b", 0.8)):
        write_image(torch.full((3, 2, 2), value), tmp_path / f"{name}.png")
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "chosen": datasets.Image(), "rejected": datasets.Image()}
    )
    row = {"prompt": "q", "chosen": str(tmp_path / "a.png"), "rejected": str(tmp_path / "b.png")}
    datasets.Dataset.from_list([row], features=features).save_to_disk(str(tmp_path / "hf"))
    (pair,) = Preferences(str(tmp_path / "hf")).training_items()
    torch.testing.assert_close(pair.rejected, torch.full((3, 2, 2), 0.8))


def test_prompts_about_a_picture(tmp_path: Path) -> None:
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png")
    row = {"prompt": "what?", "chosen": "grey", "rejected": "red", "picture": "a.png", "by": "me"}
    first = Preferences(write(tmp_path / "p.jsonl", row), outputs="text", image="picture").training_items()[0]
    assert first.prompt.meta == {"by": "me"} and first.chosen == "grey"
    torch.testing.assert_close(first.prompt.media["image"], torch.full((3, 4, 4), 0.2))
    faulty = write(tmp_path / "q.jsonl", row, {**row, "picture": None})
    with pytest.raises(DataError, match=r"q\.jsonl:2: 'picture' is missing; every row needs its picture"):
        Preferences(faulty, outputs="text", image="picture").training_items()[1]


def test_sound(tmp_path: Path) -> None:
    write_audio(torch.zeros(1, 80), 8_000, tmp_path / "a.wav")
    file = write(tmp_path / "p.jsonl", {"prompt": "q", "chosen": "a.wav", "rejected": "a.wav"})
    (pair,) = Preferences(file).training_items()
    assert isinstance(pair.chosen, Audio) and pair.chosen.rate == 8_000 and pair.chosen.samples.shape == (1, 1, 80)


def test_faults_show_the_row(tmp_path: Path) -> None:
    mixed = write(tmp_path / "m.jsonl", {"prompt": "q", "chosen": "a.png", "rejected": "words"})
    with pytest.raises(DataError, match=r"m\.jsonl:1: 'chosen' and 'rejected' look like image and text; say outputs"):
        Preferences(mixed).training_items()
    assert Preferences(mixed, outputs="text").training_items()[0].chosen == "a.png"
    with pytest.raises(
        DataError, match=r"n\.jsonl: no column 'rejected'\..* Columns found: prompt, chosen\. First row"
    ):
        Preferences(write(tmp_path / "n.jsonl", {"prompt": "q", "chosen": "x"})).training_items()
    listed = write(tmp_path / "l.jsonl", {"prompt": "q", "chosen": ["yes"], "rejected": "x"})
    with pytest.raises(DataError, match=r"l\.jsonl:1: 'chosen' is \['yes'\], not a text"):
        Preferences(listed).training_items()[0]


def test_held_out_keeps_all_pairs_of_a_prompt_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i % 10}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(30)]
    source = Preferences(write(tmp_path / "p.jsonl", *rows), held_out=0.3)
    train, aside = source.training_items(), source.held_out_items()
    assert (len(train), len(aside)) == (21, 9)
    assert not {p.prompt.text for p in train} & {p.prompt.text for p in aside}


def test_ties_and_pairs_in_both_directions_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("q", "a", "b"), ("q", "b", "a"), ("r", "b", "a"), ("q", "c", "c"), ("q", "a", "c"), ("q", "c", "c")]
    made = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]
    pairs = Preferences(write(tmp_path / "p.jsonl", *made)).training_items()
    said = [record.getMessage() for record in caplog.records]
    assert len(pairs) == 6 and len(said) == 2

    assert (
        "2 of 6 comparisons hold the same in 'chosen' and 'rejected' (the first: " in said[0] and "p.jsonl:4" in said[0]
    )
    assert "2 of 6 comparisons stand in both directions (the first: " in said[1] and "p.jsonl:1" in said[1]
    caplog.clear()
    Preferences(write(tmp_path / "p.jsonl", *made[2:3], *made[:1])).training_items()
    assert not caplog.records


def test_pairs_about_different_pictures_take_nothing_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.png"):
        write_image(torch.full((3, 4, 4), 0.2), tmp_path / name)
    one = {"prompt": "q", "chosen": "a", "rejected": "b", "image": "a.png"}
    two = {"prompt": "q", "chosen": "b", "rejected": "a", "image": "b.png"}
    Preferences(write(tmp_path / "p.jsonl", one, two), image="image").training_items()
    assert not caplog.records


def test_labels_say_which_side_was_preferred(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import pyarrow
    import pyarrow.parquet

    first, second = odd.picture(size=(4, 4)), odd.picture("L", "JPEG", size=(8, 8))
    rows = [
        {"caption": f"q{i}", "jpg_0": first, "jpg_1": second, "label_0": label, "label_1": 1 - label, "has_label": True}
        for i, label in enumerate((1.0, 0.0, 0.5))
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    named: dict[str, Any] = {"prompt": "caption", "chosen": "jpg_0", "rejected": "jpg_1"}
    with pytest.raises(DataError, match=r"'label_0' says whether 'jpg_0' was preferred; set data\.label: label_0"):
        Preferences(str(tmp_path / "p.parquet"), **named).training_items()
    pairs = Preferences(str(tmp_path / "p.parquet"), **named, label="label_0").training_items()
    require_files(pairs)
    assert [(len(p.chosen[0]), p.prompt.meta["label"]) for p in pairs] == [(4, 1.0), (8, 1.0), (4, 0.5)]
    assert "'jpg_1' was preferred in 1 of 3 comparisons, which are swapped, and 1 are ties" in caplog.text


@pytest.mark.parametrize("label", ["often", -0.1, 2, None, True, [1]])
def test_labels_that_are_none_are_named_with_their_row(tmp_path: Path, label: object) -> None:
    row = {"prompt": "q", "chosen": "x", "rejected": "y", "better": 1}
    file = write(tmp_path / "p.jsonl", row, {**row, "better": label})
    with pytest.raises(DataError, match=r"p\.jsonl:2: 'better' is .*; expected P\(chosen is better\) in \[0, 1\]"):
        require_files(Preferences(file, label="better").training_items())


def test_a_pair_and_its_mirror_with_labels_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y", "label": 1}]
    rows.append({"prompt": "q", "chosen": "y", "rejected": "x", "label": 0})
    Preferences(write(tmp_path / "p.jsonl", *rows)).training_items()
    assert "both directions" not in caplog.text
    Preferences(write(tmp_path / "p.jsonl", rows[0], {**rows[1], "label": 1})).training_items()
    assert "2 of 2 comparisons stand in both directions" in caplog.text
