"""Prompts from every kind of file; every fault says file, place and what was found."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import ConfigError, DataError, MediaError
from mmalign.core.registry import construct
from mmalign.core.types import Prompt
from mmalign.data import data_sources
from mmalign.data.held_out import split
from mmalign.data.lazy_media import LazyMedia, require_files
from mmalign.data.like_training import prompts_like
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.data.sources.scenes import Scenes
from mmalign.media.image import write_image
from tests.media import odd

ROWS = [{"prompt": f"a {c} thing", "count": i, "tags": ["x", c]} for i, c in enumerate(("red", "green", "blue", "odd"))]


def lines(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_registry_lists_the_sources() -> None:
    assert data_sources.names() == [
        "captioned",
        "conversations",
        "mixture",
        "preferences",
        "prompts",
        "scenes",
        "views",
    ]
    assert data_sources.get("prompts") is Prompts


def test_options_are_checked_from_outside(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.colum: unknown option\. Did you mean 'column'\?"):
        data_sources.build({"name": "prompts", "path": "x", "colum": "text"}, "data")
    with pytest.raises(ConfigError, match=r"set held_out or held_out_path, not both"):
        construct(Prompts, {"path": "x", "held_out": 0.1, "held_out_path": "y"}, "data")
    with pytest.raises(ConfigError, match=r"data\.held_out: must be below 1 \(got 1\.5\)"):
        construct(Prompts, {"path": "x", "held_out": 1.5}, "data")


def test_txt_skips_blank_lines_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeff# header\r\n\r\n  a cat \r\n\\#1 fan\r\nzwei Bäume\r\na\u2028b".encode())
    items = Prompts(str(file)).training_items()
    assert [p.text for p in items] == ["a cat", "#1 fan", "zwei Bäume", "a\u2028b"]
    assert items[0].meta == {} and list(Prompts(str(file)).held_out_items()) == []


def test_rows_of_every_format_become_prompts_and_meta(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    lines(tmp_path / "p.jsonl", *ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "hf"))
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "note"])
        writer.writeheader()
        writer.writerows({"prompt": r["prompt"], "note": 'two\nlines, "quoted"'} for r in ROWS)
    for name in ("p.jsonl", "p.parquet", "hf"):
        items = Prompts(name, relative_to=tmp_path).training_items()
        assert [(p.text, p.meta) for p in items] == [
            (r["prompt"], {"count": r["count"], "tags": r["tags"]}) for r in ROWS
        ], name
    items = Prompts("p.csv", relative_to=tmp_path).training_items()
    assert items[2].text == "a blue thing" and items[2].meta == {"note": 'two\nlines, "quoted"'}
    assert len(Prompts("p.jsonl", relative_to=tmp_path, limit=2).training_items()) == 2


def test_a_plain_folder_of_data_files_is_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "folder").mkdir()
    lines(tmp_path / "folder" / "train.jsonl", *ROWS)
    lines(tmp_path / "folder" / "test.jsonl", ROWS[0])
    assert len(Prompts(str(tmp_path / "folder"), split="test").training_items()) == 1
    with pytest.raises(DataError, match=r"folder: no split 'tset'\. Did you mean 'test'\? Splits: train, test"):
        Prompts(str(tmp_path / "folder"), split="tset").training_items()


def test_missing_column_shows_columns_suggestion_and_first_row(tmp_path: Path) -> None:
    file = lines(tmp_path / "p.jsonl", {"promt": "a cat", "n": 1})
    message = (
        r"p\.jsonl: no column 'prompt'\. Did you mean 'promt'\? Columns found: promt, n\. "
        r"First row: \{'n': 1, 'promt': 'a cat'\}"
    )
    with pytest.raises(DataError, match=message):
        Prompts(file).training_items()
    (tmp_path / "p.txt").write_text("a cat\n")
    with pytest.raises(DataError, match=r"p\.txt: no column 'text'\..* Columns found: prompt\."):
        Prompts(str(tmp_path / "p.txt"), column="text").training_items()


def test_bad_rows_are_named_with_their_line(tmp_path: Path) -> None:
    good = {"prompt": "a cat"}
    (tmp_path / "bad.jsonl").write_text(json.dumps(good) + "\n\n{'prompt': 1}\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:3: not valid JSON: .* at column 2\. The line: "):
        Prompts(str(tmp_path / "bad.jsonl")).training_items()
    with pytest.raises(DataError, match=r"list\.jsonl:2: a line must be a JSON object .*, got \[1, 2\]"):
        Prompts(lines(tmp_path / "list.jsonl", good, [1, 2])).training_items()
    with pytest.raises(DataError, match=r"n\.jsonl:2: 'prompt' is 3, not a text\. The row: \{'prompt': 3\}"):
        Prompts(lines(tmp_path / "n.jsonl", good, {"prompt": 3})).training_items()
    with pytest.raises(DataError, match=r"m\.jsonl:2: 'prompt' is missing\. The row: \{'text': 'x'\}"):
        Prompts(lines(tmp_path / "m.jsonl", good, {"text": "x"})).training_items()
    with pytest.raises(DataError, match=r"e\.jsonl:2: 'prompt' is '  ', not a text|e\.jsonl:2: 'prompt' is empty"):
        Prompts(lines(tmp_path / "e.jsonl", good, {"prompt": ""})).training_items()
    (tmp_path / "short.csv").write_text("prompt,n\na cat,1\na dog\n")
    with pytest.raises(
        DataError, match=r"short\.csv:3: the row does not have the 2 fields of the header \(prompt, n\)"
    ):
        Prompts(str(tmp_path / "short.csv")).training_items()


def test_bad_rows_come_all_at_once(tmp_path: Path) -> None:
    good = json.dumps({"prompt": "a cat", "image": "a.png"})
    (tmp_path / "bad.jsonl").write_text("\n".join([good, "{broken", good, "[1]"]))
    with pytest.raises(DataError) as caught:
        Prompts(str(tmp_path / "bad.jsonl")).training_items()
    assert [line.split(": ")[0][-7:] for line in str(caught.value).split("\n")] == ["jsonl:2", "jsonl:4"]
    file = lines(tmp_path / "p.jsonl", {"prompt": 3, "image": "a.png"}, {"prompt": "x"}, *[{"prompt": ""}] * 30)
    with pytest.raises(DataError) as caught:
        Prompts(file, image="image").training_items()
    told = str(caught.value).split("\n")
    assert "p.jsonl:1: 'prompt' is 3" in told[0] and "p.jsonl:2: 'image' is missing" in told[1]
    assert "p.jsonl:20: 'prompt' is empty" in told[19] and told[20:] == ["… and 12 more."]
    (tmp_path / "short.csv").write_text('prompt,n\na cat,1\na dog\na cow\n"x')
    with pytest.raises(DataError, match=r"(?s)short\.csv:3: the row does.*csv:4: the row does.*: not valid CSV"):
        Prompts(str(tmp_path / "short.csv")).training_items()


def test_files_that_rows_name_must_be_there(tmp_path: Path) -> None:
    write_image(torch.zeros(3, 4, 4), tmp_path / "a.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    cells = ["a.png", "gone.png", "", "empty.png", "folder", str(tmp_path / "a.png"), 7]
    file = lines(tmp_path / "p.jsonl", *({"prompt": f"{i}", "image": cell} for i, cell in enumerate(cells)))
    items = Prompts(file, image="image").training_items()
    with pytest.raises(DataError) as caught:
        require_files(items, items[:2])
    assert str(caught.value).split("\n") == [
        f"{file}:2: {tmp_path}/gone.png cannot be read (No such file or directory).",
        f"{file}:3: expected the path of a file, got ''.",
        f"{file}:4: {tmp_path}/empty.png is empty (0 bytes).",
        f"{file}:5: {tmp_path}/folder is a folder, not a file.",
        f"{file}:7: expected the path of a file, got 7.",
    ]
    held = LazyMedia({"image": odd.picture()}, tmp_path, "there")
    require_files([items[0], items[5]], [Prompt("x"), Prompt("y", held)])
    with pytest.raises(DataError, match=r"there: Pillow .* does not recognise a picture in its 1 bytes"):
        require_files([Prompt("y", LazyMedia({"image": {"bytes": b"x"}}, tmp_path, "there"))])


def test_other_prompts_are_read_as_the_runs_own(tmp_path: Path) -> None:
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png")
    own = lines(tmp_path / "own.jsonl", {"ask": "what?", "seen": "a.png"})
    other = lines(tmp_path / "other.jsonl", {"ask": "why?", "seen": "a.png", "by": "me"})
    plain = lines(tmp_path / "plain.jsonl", {"prompt": "why?", "seen": "a.png"})
    source = Prompts(own, column="ask", image="seen")
    (asked,) = prompts_like(source, "other.jsonl", tmp_path)
    assert (asked.text, list(asked.media), asked.meta) == ("why?", ["image"], {"by": "me"})
    assert list(prompts_like(source, plain)[0].media) == ["image"]
    pairs = Preferences(own, prompt="ask", image="seen", outputs="text")
    assert list(prompts_like(pairs, other)[0].media) == ["image"]
    (tmp_path / "blind.txt").write_text("why?\n")
    blind = (
        r"blind\.txt: no column 'seen' with the picture that each prompt is about, and the run's own prompts are about "
        r"one; add it, or name other prompts\. Columns found: prompt\."
    )
    with pytest.raises(DataError, match=blind):
        prompts_like(source, str(tmp_path / "blind.txt"))
    (asked,) = prompts_like(Prompts(own, column="ask"), str(tmp_path / "blind.txt"))
    assert asked.text == "why?" and not asked.media


def test_other_prompts_for_pictures_that_no_file_names(tmp_path: Path) -> None:
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png")
    other = lines(tmp_path / "other.jsonl", {"prompt": "why?", "image": "a.png"})
    assert list(prompts_like(Scenes(count=2), other)[0].media) == ["image"]
    (tmp_path / "blind.txt").write_text("why?\n")
    with pytest.raises(DataError, match=r"blind\.txt: no column 'image' with the picture"):
        prompts_like(Scenes(count=2), str(tmp_path / "blind.txt"))


def test_unusable_files_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# only a comment\n\n")
    with pytest.raises(DataError, match=r"empty\.txt: holds no rows; expected at least one"):
        Prompts(str(tmp_path / "empty.txt")).training_items()
    (tmp_path / "latin.txt").write_bytes("a\ncaf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt:2: not UTF-8 text .*save the file as UTF-8"):
        Prompts(str(tmp_path / "latin.txt")).training_items()
    (tmp_path / "p.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot read '\.xlsx' files; use \.txt, \.jsonl, \.csv, \.parquet"):
        Prompts(str(tmp_path / "p.xlsx")).training_items()
    (tmp_path / "p.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"p\.parquet: pyarrow [\d.]+ cannot read it as parquet"):
        Prompts(str(tmp_path / "p.parquet")).training_items()
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match=r"hollow: datasets [\d.]+ cannot load it: "):
        Prompts(str(tmp_path / "hollow")).training_items()
    with pytest.raises(DataError, match=r"gone\.txt: no such file or folder"):
        Prompts("gone.txt", relative_to=tmp_path).training_items()


def test_pictures_condition_lazily(tmp_path: Path) -> None:
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png")
    write_image(torch.full((3, 4, 4), 0.4), tmp_path / "b.png")
    file = lines(tmp_path / "p.jsonl", {"prompt": "what?", "image": "a.png"}, {"prompt": "why?", "image": "b.png"})
    first, second = Prompts(file, image="image").training_items()
    assert list(first.media) == ["image"] and first.meta == {}
    torch.testing.assert_close(first.media["image"], torch.full((3, 4, 4), 0.2))
    (tmp_path / "b.png").write_bytes(b"junk")
    with pytest.raises(MediaError, match=r"b\.png \(named in .*p\.jsonl:2\): Pillow"):
        second.media["image"]
    with pytest.raises(DataError, match=r"q\.jsonl:2: 'image' is missing"):
        Prompts(
            lines(tmp_path / "q.jsonl", {"prompt": "x", "image": "a.png"}, {"prompt": "y"}), image="image"
        ).training_items()


def test_held_out_share_is_exact_disjoint_and_independent_of_order(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    texts = [f"prompt {i}" for i in range(50)] + ["prompt 0"]
    file.write_text("\n".join(texts))
    source = Prompts(str(file), held_out=0.2)
    train, aside = ({p.text for p in side} for side in (source.training_items(), source.held_out_items()))
    assert len(aside) == 10 and not train & aside and train | aside == set(texts)
    file.write_text("\n".join(reversed(texts)))
    assert {p.text for p in Prompts(str(file), held_out=0.2).held_out_items()} == aside
    with pytest.raises(DataError, match=r"held_out = 0\.001 of 50 distinct prompts is 0; both sides need at least one"):
        Prompts(str(file), held_out=0.001).training_items()


@settings(max_examples=50)
@given(st.lists(st.text(max_size=3), min_size=4, max_size=30), st.floats(0.2, 0.8))
def test_held_out_partitions_rows_and_never_splits_a_text(texts: list[str], share: float) -> None:
    try:
        kept, aside = split([Prompt(text) for text in texts], share, "f")
    except DataError:
        assert not 0 < round(share * len(set(texts))) < len(set(texts))
        return
    assert sorted([*kept, *aside]) == list(range(len(texts)))
    assert not {texts[i] for i in kept} & {texts[i] for i in aside}


def test_leaking_held_out_file_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree")
    (tmp_path / "b.txt").write_text("two\nfour")
    source = Prompts("a.txt", held_out_path="b.txt", relative_to=tmp_path)
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        assert [p.text for p in source.held_out_items()] == ["two", "four"]
    assert "1 of 2 held-out prompts" in caplog.text and "'two'" in caplog.text


def test_sounds_condition_lazily(tmp_path: Path) -> None:
    from mmalign.media.audio import write_audio

    write_audio(torch.full((2, 40), 0.25), 800, tmp_path / "a.wav")
    write_image(torch.full((3, 4, 4), 0.2), tmp_path / "a.png")
    row = {"prompt": "what?", "heard": "a.wav", "seen": "a.png", "by": "me"}
    file = lines(tmp_path / "p.jsonl", row, {**row, "heard": "none.wav"})
    first, second = Prompts(file, audio="heard", image="seen").training_items()
    assert list(first.media) == ["image", "audio"] and first.meta == {"by": "me"}
    assert first.media["audio"].rate == 800 and first.media["image"].shape == (3, 4, 4)
    torch.testing.assert_close(first.media["audio"].samples, torch.full((1, 2, 40), 0.25), atol=1e-3, rtol=0)
    with pytest.raises(DataError, match=r"p\.jsonl:2: .*none\.wav cannot be read"):
        second.media["audio"]
    with pytest.raises(DataError, match=r"q\.jsonl:1: 'heard' is missing; every row needs its sound"):
        Prompts(lines(tmp_path / "q.jsonl", {**row, "heard": None}), audio="heard").training_items()


def test_a_prompt_knows_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("# first\n\na cat\na dog\n")
    assert [p.place for p in Prompts(str(file)).training_items()] == [f"{file}:3", f"{file}:4"]
    rows = lines(tmp_path / "p.jsonl", {"prompt": "q", "chosen": "x", "rejected": "y"})
    assert Preferences(rows).training_items()[0].prompt.place == f"{rows}:1"
    assert Prompt("a cat", place="here") == Prompt("a cat")  # where it stands is no part of what is asked


def test_lines_of_json_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    deep, long = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"prompt": "a", "n": ' + "7" * 5_000 + "}"
    (tmp_path / "p.jsonl").write_text("\n".join(['{"prompt": "a"}', deep, long, '{"prompt": "\\ud800"}']))
    with pytest.raises(DataError) as caught:
        Prompts(str(tmp_path / "p.jsonl")).training_items()
    told = str(caught.value).split("\n")
    assert "p.jsonl:2: not valid JSON: its brackets are nested too deeply" in told[0]
    assert "p.jsonl:3: not valid JSON: Exceeds the limit (4300 digits)" in told[1] and len(told) == 2
    (tmp_path / "p.jsonl").write_text('{"prompt": "\\ud800"}')
    with pytest.raises(DataError, match=r"p\.jsonl:1: 'prompt' holds '\\ud800', half of a character"):
        Prompts(str(tmp_path / "p.jsonl")).training_items()


def test_a_device_is_no_file_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "p.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"p\.txt: is not a file \(a device, a pipe or a socket\)"):
        Prompts(str(tmp_path / "p.txt")).training_items()


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "p.csv").write_text("prompt,n,prompt\na,1,b\n")
    pair = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["prompt", "prompt"])
    pyarrow.parquet.write_table(pair, tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        with pytest.raises(DataError, match=r"columns are called 'prompt'; rename them|cannot read it as parquet"):
            Prompts(str(tmp_path / name)).training_items()


def test_a_damaged_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"prompt": f"text {i}"} for i in range(40)]), tmp_path / "p.parquet"
    )
    whole = (tmp_path / "p.parquet").read_bytes()
    for at in range(0, len(whole), 3):
        (tmp_path / "p.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            Prompts(str(tmp_path / "p.parquet")).training_items()
        except DataError as error:
            assert "p.parquet" in str(error)


def test_a_folder_of_everything_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.data import hub

    monkeypatch.setattr(hub, "MOST_FILES", 9)
    for number in range(5):
        (tmp_path / f"deep{number}").mkdir()
        (tmp_path / f"deep{number}" / "x.txt").touch()
    with pytest.raises(DataError, match=r"holds more than 9 files; name the folder of the data set itself"):
        Prompts(path=str(tmp_path)).training_items()


@pytest.mark.parametrize(
    "given", ["openai/gsm8k", "datasets/openai/gsm8k", "https://huggingface.co/datasets/openai/gsm8k"]
)
def test_a_dataset_of_the_hub_is_named_as_one(given: str) -> None:
    with pytest.raises(DataError, match=r"no such file or folder; .* If a dataset of the .* write hub:openai/gsm8k\."):
        Prompts(path=given).training_items()
    for other in ("rows/gone.jsonl", "./rows", "rows", "a/b/c/d"):
        with pytest.raises(DataError) as caught:
            Prompts(path=other).training_items()
        assert "hub:" not in str(caught.value)


def test_a_dataset_with_several_configs_is_asked_for_by_one(tmp_path: Path) -> None:
    for name, text in (("main", "two"), ("other", "three")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{text}"}}\n')
    parts = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("main", "other"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    with pytest.raises(DataError, match=r"has several configs; set data\.config to one of them\. It has main, other\."):
        Prompts(path=f"hub:{tmp_path}").training_items()
    assert [row.text for row in Prompts(path=f"hub:{tmp_path}:other").training_items()] == ["three"]
