"""Given pictures and sounds of another size, rate, length or channels are brought to the run's, or refused by name.

Either is told before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmalign.adapters import adapters
from mmalign.adapters.bases.formats import Frame, SoundFormat
from mmalign.core.errors import DataError, all_faults
from mmalign.data.intake import FittedRows, MediaOptions, refused
from mmalign.data.sources.captioned import Captioned
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.run.checks.shapes import declared_shape, fitted_rows, size
from mmalign.run.media_lines import media_lines, row_lines
from tests.adapters import tiny as plain
from tests.adapters.image.tiny_flux import write_flux
from tests.adapters.image.tiny_qwen_image import write_qwen_image
from tests.adapters.image.tiny_sana import write_sana
from tests.adapters.sound import tiny_ldm
from tests.adapters.sound.tiny_ace_step import write_ace_step
from tests.adapters.sound.tiny_musicgen import write_musicgen
from tests.adapters.sound.tiny_stable_audio import write_stable_audio
from tests.adapters.sound.tiny_stable_audio_3 import write_stable_audio_3
from tests.media import odd

PICTURES: dict[str, Callable[[Path], Path]] = {
    "sd": plain.write_tiny_sd,
    "sdxl": plain.write_tiny_sdxl,
    "sd3": plain.write_tiny_sd3,
    "flux": write_flux,
    "qwen_image": write_qwen_image,
    "sana": write_sana,
}
SOUNDS: dict[str, Callable[[Path], Path]] = {
    "stable_audio": write_stable_audio,
    "stable_audio_3": write_stable_audio_3,
    "ace_step": write_ace_step,
    "audio_ldm": tiny_ldm.write_audio_ldm,
    "audio_ldm2": tiny_ldm.write_audio_ldm2,
    "music_ldm": tiny_ldm.write_music_ldm,
    "musicgen": write_musicgen,
}


def pairs(folder: Path, contents: list[bytes], suffix: str) -> Any:
    rows = []
    for i, content in enumerate(contents):
        (folder / f"{i}{suffix}").write_bytes(content)
        rows.append({"prompt": f"q{i}", "chosen": f"{i}{suffix}", "rejected": f"0{suffix}"})
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Preferences(str(folder / "p.jsonl")).training_items()


REFUSE = MediaOptions(fit="refuse", cut="refuse")


def alike(adapter: Any, items: Any, get: Any = "kept") -> None:
    """Raise DataError for the rows that differ."""
    rows = fitted_rows(adapter, REFUSE, items, get=get)
    if isinstance(rows, FittedRows) and (faults := list(refused(rows))):
        raise all_faults(faults)


def fitted(adapter: Any, items: Any, **options: Any) -> FittedRows:
    rows = fitted_rows(adapter, MediaOptions(**options), items)
    assert isinstance(rows, FittedRows)
    return rows


def scenes(**options: Any) -> Any:
    return adapters.get("sd3")(model="assets/scenes_sd3", **options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a family's tiny checkpoint, written when first asked for."""
    root, written = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(name: str) -> str:
        if name not in written:
            written[name] = str((PICTURES | SOUNDS)[name](root / name))
        return written[name]

    return folder


def test_pictures_are_held_to_the_runs_size(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=size) for size in ((64, 64), (65, 65), (64, 32))], ".png")
    frame = declared_shape(scenes())
    assert isinstance(frame, Frame) and frame.native == (64, 64)
    with pytest.raises(DataError) as caught:
        alike(scenes(), items)
    told = str(caught.value).split("\n")
    assert told[0].endswith(
        ":2, 'chosen': a picture of 65 x 65 (width x height), but the run makes 64 x 64; set data.fit: cover, contain "
        "or stretch."
    )
    assert "p.jsonl:3, 'chosen': a picture of 64 x 32" in told[1] and len(told) == 2
    with pytest.raises(DataError, match=r"p\.jsonl:1, 'chosen': a picture of 64 x 64 .* the run makes 65 x 65"):
        alike(scenes(resolution=65), items)
    with pytest.raises(DataError, match=r"p\.jsonl:2, 'chosen': .* the run makes 64 x 64"):  # as most others are
        alike(SimpleNamespace(model="elsewhere/unknown"), items)


@pytest.mark.parametrize("name", PICTURES)
def test_the_configuration_tells_what_loading_finds(name: str, tiny: Callable[[str], str], tmp_path: Path) -> None:
    """Of every family that makes pictures; the pipeline's own attributes are the truth."""
    adapter = adapters.get(name)(model=tiny(name), device="cpu", train="frozen")
    told = declared_shape(adapter)
    assert isinstance(told, Frame)
    pipe = adapter.load().loaded.pipeline
    assert told.native == (adapter.height, adapter.width)
    assert told.multiple % pipe.vae_scale_factor == 0
    if hasattr(pipe, "default_sample_size"):
        assert told.native == (pipe.default_sample_size * pipe.vae_scale_factor,) * 2
    assert told.channels == adapter.latent_shape[0]
    fresh = adapters.get(name)(model=tiny(name))
    side = told.native[0] + told.multiple
    items = pairs(tmp_path, [odd.picture(size=(side, side))], ".png")
    with pytest.raises(DataError, match=rf"p\.jsonl:1, 'chosen': a picture of {side} x {side} .* but the run makes"):
        alike(fresh, items)


@pytest.mark.parametrize("name", PICTURES)
def test_a_size_that_is_not_made_is_told_before_loading(name: str, tiny: Callable[[str], str]) -> None:
    told = declared_shape(adapters.get(name)(model=tiny(name)))
    assert told is not None and list(size(adapters.get(name)(model=tiny(name)))) == []
    assert isinstance(told, Frame)
    odd_side = told.native[0] + 1
    said = list(size(adapters.get(name)(model=tiny(name), height=odd_side)))
    assert [
        f"adapter.height: {odd_side} is not a positive multiple of {told.multiple}" in str(each) for each in said
    ] == [True]


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_are_held_to_what_the_checkpoint_makes(name: str, tiny: Callable[[str], str], tmp_path: Path) -> None:
    options = {"seconds": 0.4} if name == "stable_audio_3" else {}  # its own default is more than the tiny one makes
    adapter = adapters.get(name)(model=tiny(name), device="cpu", train="frozen", **options)
    told = declared_shape(adapter)
    assert isinstance(told, SoundFormat)
    given = fitted(adapter, pairs(tmp_path, [odd.sound(rate=told.rate + 1, seconds=3, channels=3)], ".wav"))
    output = given[0].chosen
    assert (output.rate, output.samples.shape[1]) == (told.rate, told.channels)
    if name == "stable_audio":
        pytest.importorskip("torchsde")
    adapter.load()
    assert adapter.rate == told.rate
    if told.seconds is not None and not options:
        assert adapter.seconds == pytest.approx(told.seconds)
    if name in ("stable_audio", "stable_audio_3", "ace_step"):  # of others the tiny ones make less than one window
        assert adapter.latents(output).shape[1:] == adapter.latent_shape
    if hasattr(adapter, "loaded") and hasattr(adapter.loaded.pipeline.vae.config, "audio_channels"):
        assert adapter.loaded.pipeline.vae.config.audio_channels == told.channels


def test_a_hub_model_is_held_to_once_its_configuration_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], str]
) -> None:
    """Of one that is kept, at the start; of another, before its weights are read."""
    import huggingface_hub

    items = pairs(tmp_path, [odd.picture(size=(40, 40))], ".png")
    adapter = adapters.get("sd3")(model="somebody/sd3")
    fetches: list[str] = []
    kept: set[str] = set()

    def look(model: str, file: str, revision: str | None = None) -> str | None:
        return str(Path(tiny("sd3")) / file) if file in kept else None

    def fetch(model: str, file: str, revision: str | None = None) -> str:
        fetches.append(file)
        kept.add(file)
        return str(Path(tiny("sd3")) / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    alike(adapter, items)
    assert fetches == [] and declared_shape(adapter) is None
    with pytest.raises(DataError, match=r"p\.jsonl:1, 'chosen': a picture of 40 x 40 .* but the run makes"):
        alike(adapter, items, "fetch")
    assert sorted(fetches) == ["transformer/config.json", "vae/config.json"]
    with pytest.raises(DataError, match=r"a picture of 40 x 40 .* but the run makes"):
        alike(adapter, items)


def test_pictures_of_a_data_set_are_held_to_it_too(tmp_path: Path) -> None:
    """As `datasets` keeps them: bytes in cells, not decoded; a row is named by its number."""
    datasets = pytest.importorskip("datasets")
    sizes = ((64, 64), (17, 17))
    columns = {
        "prompt": ["a", "b"],
        "chosen": [{"bytes": odd.picture(size=size), "path": None} for size in sizes],
        "rejected": [{"bytes": odd.picture(size=(64, 64)), "path": None}] * 2,
    }
    image = datasets.Image()
    features = datasets.Features({"prompt": datasets.Value("string"), "chosen": image, "rejected": image})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "kept"))
    items = Preferences(str(tmp_path / "kept")).training_items()
    with pytest.raises(DataError, match=r"kept.*, 'chosen': a picture of 17 x 17 .* but the run makes 64 x 64") as told:
        alike(scenes(), items)
    assert str(told.value).count("\n") == 0


def test_more_than_twenty_are_counted(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=(64, 64)), *[odd.picture(size=(17, 17))] * 30], ".png")
    with pytest.raises(DataError, match=r"… and 10 more\."):
        alike(scenes(), items)


def test_longer_sounds_are_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.sound(), odd.sound(seconds=4)], ".wav")
    sentence = r"p\.jsonl:2, 'chosen': a sound of 4 s, but the run makes 3 s; raise adapter\.seconds, or set data\.cut"
    with pytest.raises(DataError, match=sentence):
        alike(SimpleNamespace(model="", seconds=3.0), items)


def test_what_is_alike_passes(tmp_path: Path) -> None:
    alike(scenes(), pairs(tmp_path, [odd.picture(size=(64, 64))] * 3, ".png"))
    alike(SimpleNamespace(model="", seconds=2.0), pairs(tmp_path, [odd.sound()] * 3, ".wav"))
    alike(SimpleNamespace(), [])


def test_pictures_are_scaled_and_what_was_done_is_told(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=size) for size in ((64, 64), (128, 64), (32, 32))], ".png")
    rows = fitted(scenes(), items)
    assert [tuple(row.chosen.shape) for row in rows] == [(3, 64, 64)] * 3
    assert rows[1].prompt.placement.original == (64, 128) and rows[1].prompt.placement.corner == (0, 32)
    (told,) = media_lines(rows)
    assert told == (
        "data: 6 pictures of 3 sizes from 32 x 32 to 128 x 64 (width x height); 2 are scaled to 64 x 64 "
        "(data.fit: cover), 1 of them are enlarged, up to 2 times, 1 are cropped, of their area up to 50%."
    )
    first, second = row_lines(rows)
    assert first.endswith("p.jsonl:2, 'chosen': 128 x 64 → 64 x 64, scaled to 128 x 64, 50% of it cropped")
    assert second.endswith("p.jsonl:3, 'chosen': 32 x 32 → 64 x 64, scaled to 64 x 64")


def test_buckets_hold_each_picture_s_shape(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.picture(size=size) for size in ((640, 640), (900, 450), (450, 900))], ".png")
    rows = fitted(scenes(), items, buckets=True)
    heights = [row.chosen.shape[1] for row in rows]
    assert heights[1] < heights[0] < heights[2]
    assert all(row.chosen.shape == row.rejected.shape for row in rows)
    assert len(rows.buckets) == len(set(rows.buckets)) == 3
    assert media_lines(rows)[1].startswith("data.buckets (width x height): ")


def test_sounds_are_converted_cut_and_told(tmp_path: Path) -> None:
    contents = [odd.sound(), odd.sound(rate=16_000, channels=2), odd.sound(seconds=4)]
    items = pairs(tmp_path, contents, ".wav")
    adapter = SimpleNamespace(model="", seconds=1.5)
    rows = fitted(adapter, items)
    assert {(row.chosen.rate, tuple(row.chosen.samples.shape)) for row in rows} == {(8_000, (1, 1, 12_000))}
    (told,) = media_lines(rows)
    for part in (
        "data: 6 sounds of 2 to 4 s, 0.233 minutes",
        "1 are resampled to 8000 Hz (1 of 16000 Hz)",
        "1 are brought to 1 channel",
        "6 are longer than 1.5 s (data.cut: start), of which the beginning stays",
    ):
        assert part in told, told
    assert row_lines(rows)[2].endswith("16000 → 8000 Hz, 2 → 1 channels, 2 s, cut: start")


def test_a_random_stretch_is_another_one_in_each_pass_and_the_same_in_a_repeated_run(tmp_path: Path) -> None:
    items = pairs(tmp_path, [odd.sound(seconds=4)], ".wav")
    rows = fitted(SimpleNamespace(model="", seconds=1.0), items, cut="random")
    passes = [rows.at(0, epoch).chosen.samples for epoch in (0, 1, 0)]
    assert passes[0].shape == passes[1].shape and not passes[0].equal(passes[1]) and passes[0].equal(passes[2])


def test_transparency_lies_over_the_stated_ground_in_prompts_pairs_and_examples(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a.png").write_bytes(odd.encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "PNG"))
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "q", "chosen": "a.png", "rejected": "a.png", "text": "t"}))
    for ground, colour in (("white", [1, 1, 1]), ("#0000ff", [0, 0, 1])):
        path = str(tmp_path / "p.jsonl")
        pair = Preferences(path, ground=ground).training_items()[0]
        prompt = Prompts(path, image="chosen", ground=ground).training_items()[0]
        example = Captioned(path, output="chosen", ground=ground).training_items()[0]
        for picture in (pair.chosen, pair.rejected, prompt.media["image"], example.output):
            assert picture[:, 0, 0].tolist() == colour
