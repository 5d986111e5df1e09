"""What a file is stands in it; how large it may be is known before it is read."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.core.errors import ConfigError, MediaError
from mmalign.core.regular import read_regular, unreadable, written
from mmalign.media.audio import read_audio
from mmalign.media.image import decode_image, picture_size, read_image
from mmalign.media.kinds import hinted, kind_of_data, kind_of_file
from tests.media import odd


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_pictures_are_known_by_their_bytes(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.txt").write_bytes(odd.picture(kind=kind, size=(40, 30)))
    assert kind_of_file(tmp_path / "x.txt") == "image"
    assert read_image(tmp_path / "x.txt").shape == (3, 30, 40) and picture_size(tmp_path / "x.txt", "x") == (30, 40)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"])
def test_sounds_are_known_by_their_bytes(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.png").write_bytes(odd.sound(kind))
    assert kind_of_file(tmp_path / "x.png") == "audio" == kind_of_data(odd.sound(kind))
    with pytest.raises(MediaError, match=r"x\.png: Pillow [\d.]+ does not recognise a picture"):
        read_image(tmp_path / "x.png")


def test_names_tell_only_where_the_content_does_not(tmp_path: Path) -> None:
    for name, kind in (("a.tiff", "image"), ("a.opus", "audio"), ("a.m4a", "audio"), ("a.heic", "image")):
        (tmp_path / name).write_bytes(b"junk")
        assert kind_of_file(tmp_path / name) == kind == hinted(name)
    assert kind_of_file(tmp_path / "none.png") == "image" and kind_of_file(tmp_path / "none") is None
    (tmp_path / "notes").write_text("a picture.png of a cat")
    assert kind_of_file(tmp_path / "notes") is None
    assert hinted("two\nlines.png") is None and hinted("a\0.png") is None and hinted(".png") is None


def test_formats_beside_the_list_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(odd.picture(kind="PCX"))
    with pytest.raises(MediaError, match=r"a\.png: .*read are PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF, JPEG2000, PPM"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.wav").write_bytes(odd.sound("VOC"))
    with pytest.raises(MediaError, match=r"a\.wav: is VOC; read are WAV, .*, MP3\. Convert it: ffmpeg"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("read", [read_image, read_audio])
def test_only_regular_files_are_opened(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name, why in (
        ("pipe.wav", r"pipe\.wav: is not a file \(a device, a pipe or a socket\)"),
        ("endless.png", r"endless\.png: is not a file"),
        (".", "is a folder, not a file"),
        ("a\0b", r"a\\x00b: cannot be read \(no name of a file\)"),
        ("a\ud800b", r"a\\ud800b: cannot be read \(no name of a file\)"),
        ("x" * 300, r"x: cannot be read \(File name too long\)"),
    ):
        with pytest.raises(MediaError, match=why):
            read(tmp_path / name)  # type: ignore[operator]


def test_a_name_that_is_no_unicode_is_read_and_written_as_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(odd.picture())
    assert read_image(tmp_path / name).shape == (3, 4, 6)
    assert written(tmp_path / name).endswith("caf\\udce9.png")
    assert unreadable(tmp_path / name) == "" and read_regular(tmp_path / name, 10_000)[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="at most 9 are read"):
        read_regular(tmp_path / name, 9)


def test_pixels_are_bounded_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in ((13_000, 13_000), (2**20, 2**20), (50_000_001, 1)):
            for read in (decode_image, picture_size):
                with pytest.raises(MediaError, match=r"x: .*50,000,000 .*\(set MMALIGN_MAX_PIXELS\)"):
                    read(odd.png_of_size(*size), "x")
            assert kind_of_data(odd.png_of_size(*size)) == "image"
    monkeypatch.setenv("MMALIGN_MAX_PIXELS", "23")
    with pytest.raises(MediaError, match="a picture of 6 x 4 is 24 pixels; at most 23 are read"):
        decode_image(odd.picture(), "x")
    monkeypatch.setenv("MMALIGN_MAX_PIXELS", "24")
    assert decode_image(odd.picture(), "x").shape == (3, 4, 6)
    for wrong in ("many", "0", "-3", "1e6"):
        monkeypatch.setenv("MMALIGN_MAX_PIXELS", wrong)
        with pytest.raises(ConfigError, match="a positive whole number of pixels is expected"):
            decode_image(odd.picture(), "x")


def test_pictures_whose_numbers_have_no_range_are_refused() -> None:
    for array, what in ((np.ones((2, 2), np.float32), "floating-point"), (np.full((2, 2), 70_000, np.int32), "32-bit")):
        data = odd.encoded(Image.fromarray(array), "TIFF")
        with pytest.raises(MediaError, match=f"x: its pixels are {what} numbers of no fixed range"):
            decode_image(data, "x")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_a_png(mode: str) -> None:
    assert decode_image(odd.picture(mode), "x").shape == (3, 4, 6)


def test_animated_turned_and_printed_pictures() -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = odd.encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        torch.testing.assert_close(decode_image(data, "x")[:, 0, 0], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)
    assert decode_image(odd.picture("CMYK", "JPEG"), "x").shape == (3, 4, 6)
    exif = Image.new("RGB", (6, 4)).getexif()
    exif[274] = 6
    turned = odd.picture(kind="JPEG", exif=exif)
    assert decode_image(turned, "x").shape == (3, 6, 4) and picture_size(turned, "x") == (6, 4)


def test_what_others_open_is_held_to_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from mmalign.demo.answers import chosen_prompt
    from mmalign.media.kinds import bound_pillow

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    bound_pillow()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(odd.png_of_size(50_000_001, 1)))
    decode_image(odd.picture(), "x")  # does not raise it again
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(odd.png_of_size(50_000_001, 1)))
    monkeypatch.setenv("MMALIGN_MAX_PIXELS", "23")
    with pytest.raises(MediaError, match=r"the picture: 6 x 4 is 24 pixels; at most 23 are read"):
        chosen_prompt([], "what is it?", None, Image.new("RGB", (6, 4)))
