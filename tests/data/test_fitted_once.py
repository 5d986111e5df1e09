"""Given media are decoded and fitted once where memory allows it, and of a long sound only the stretch that is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.data import lazy_media
from mmalign.data.intake import FittedRows, MediaOptions, PictureTarget
from mmalign.data.recent import Recent
from mmalign.data.sources.captioned import Captioned
from mmalign.data.sources.preferences import Preferences
from mmalign.media import sound_part
from mmalign.media.audio import decode_audio
from mmalign.media.image import write_image
from mmalign.media.sound_fit import SoundTarget, converted, stretch
from tests.data.archives import jsonl

LONG = 30_011  # samples: no multiple of anything


def sound(path: Path, rate: int, channels: int = 2, subtype: str | None = None, samples: int = LONG) -> Path:
    import soundfile

    noise = torch.rand(samples, channels, generator=torch.Generator().manual_seed(rate)) - 0.5
    soundfile.write(path, noise.numpy(), rate, subtype=subtype)
    return path


@pytest.mark.parametrize("rates", [(8000, 8000), (8000, 44100), (44100, 16000), (48000, 44100), (16000, 32000)])
@pytest.mark.parametrize("file", ["a.wav", "a.flac", "a.aiff", "a.w64"])
def test_a_part_is_what_the_whole_would_be_cut_to(tmp_path: Path, file: str, rates: tuple[int, int]) -> None:
    data = sound(tmp_path / file, rates[0]).read_bytes()
    target = SoundTarget(rates[1], 1, 3001)
    whole = converted(*decode_audio(data, "a"), target)
    for start in (0, 1, 3001, 2 * 3001, whole.shape[-1] - 3001, whole.shape[-1] - 10):
        part = sound_part.part_of(data, "a", target, lambda total, at=start: at if total == whole.shape[-1] else -1)  # type: ignore[misc]
        assert part is not None
        torch.testing.assert_close(part, stretch(whole, start, 3001), rtol=0, atol=0 if rates[0] == rates[1] else 1e-6)


def test_formats_without_exact_places_are_decoded_whole(tmp_path: Path) -> None:
    for name, subtype in (("a.mp3", None), ("a.ogg", None), ("a.wav", "IMA_ADPCM")):
        data = sound(tmp_path / name, 16000, 1, subtype).read_bytes()
        assert sound_part.part_of(data, "a", SoundTarget(16000, 1, 100), lambda total: 0) is None


def rows(path: Path, cut: Any, gib: float = 1.0) -> FittedRows:
    items = Captioned(
        jsonl(path / f"rows{gib}.jsonl", [{"text": f.name, "song": f.name} for f in sorted(path.glob("s*"))])
    )
    return FittedRows(items.training_items(), SoundTarget(8000, 1, 8000), MediaOptions(cut=cut, fitted_gib=gib), seed=3)


@pytest.mark.parametrize("cut", ["start", "windows", "random"])
def test_each_song_is_decoded_once_with_the_same_samples(
    tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s1.mp3", "s2.ogg", "s3.flac", "s4.wav"):
        sound(tmp_path / name, 16000)
    sound(tmp_path / "s5.wav", 16000, samples=900)  # shorter than a stretch
    decoded, real = [], lazy_media.read_sound

    def noted(*given: Any) -> Any:
        decoded.append(given[0])
        return real(*given)

    monkeypatch.setattr(lazy_media, "read_sound", noted)
    kept, anew = rows(tmp_path, cut), rows(tmp_path, cut, 0)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(1)).tolist()
    for epoch in range(2):
        for at in order:
            row, other = kept.at(at, epoch), anew.at(at, epoch)
            assert torch.equal(row.output.samples, other.output.samples) and row.prompt.text == other.prompt.text
    assert len(order) == (5 if cut != "windows" else 4 * 2 + 1)
    assert sorted(set(decoded)) == ["s1.mp3", "s2.ogg"]
    anew_too = 4 if cut == "windows" else 2  # by the rows that keep nothing, at every look
    assert decoded.count("s1.mp3") == decoded.count("s2.ogg") == 1 + anew_too


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_image(torch.rand(3, 40 + number, 60), tmp_path / f"{number}.png")
    pairs = [{"prompt": f"p{i}", "chosen": f"{i}.png", "rejected": f"{(i + 1) % 3}.png"} for i in range(3)]
    items = Preferences(jsonl(tmp_path / "rows.jsonl", pairs)).training_items()
    kept, anew = (FittedRows(items, PictureTarget((16, 16)), MediaOptions(fitted_gib=gib)) for gib in (1.0, 0.0))
    first = [kept.at(at) for at in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(lazy_media, "read_picture", lambda *given: pytest.fail("decoded again"))
        again = [kept.at(at) for at in range(3)]
    for row, later, other in zip(first, again, [anew.at(at) for at in range(3)], strict=True):
        assert row.prompt.placement == later.prompt.placement == other.prompt.placement
        assert torch.equal(row.chosen, later.chosen) and torch.equal(later.chosen, other.chosen)
        assert torch.equal(later.rejected, other.rejected) and later.prompt.text == other.prompt.text


def test_what_was_used_least_goes_first() -> None:
    recent, tensors = Recent(100), [torch.zeros(10) for _ in range(4)]  # 40 bytes each
    recent.put("a", tensors[:1])
    recent.put("b", tensors[1:2])
    assert recent.get("a") is not None
    recent.put("c", tensors[2:3])
    recent.put("large", [torch.zeros(30)])
    assert [recent.get(key) is not None for key in ("a", "b", "c", "large")] == [True, False, True, False]
    assert recent.bytes == 80
