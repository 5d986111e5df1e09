"""Pictures survive files; broken files are named with their decoder."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmalign.core.errors import MediaError
from mmalign.media import image as media


def noise(height: int = 12, width: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)).float() / 255


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_png_is_exact(tmp_path: Path, suffix: str) -> None:
    picture = noise()
    media.write_image(picture, tmp_path / f"a{suffix}")
    torch.testing.assert_close(media.read_image(tmp_path / f"a{suffix}"), picture, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_jpeg_agrees_with_pillow(tmp_path: Path) -> None:
    smooth = torch.linspace(0, 1, 32).expand(3, 32, 32)
    media.write_image(smooth, tmp_path / "a.jpg")
    peer = np.asarray(Image.open(tmp_path / "a.jpg")).transpose(2, 0, 1) / 255
    read = media.read_image(tmp_path / "a.jpg")
    np.testing.assert_allclose(read.numpy(), peer, atol=1e-6)
    assert (read - smooth).abs().max() < 0.03


@settings(max_examples=50)
@given(st.integers(0, 255))
def test_every_byte_value_round_trips(value: int) -> None:
    picture = torch.full((3, 1, 1), value / 255)
    assert media.to_uint8(picture).unique().item() == value


def test_values_outside_the_range_are_clamped_and_nan_is_refused() -> None:
    assert media.to_uint8(torch.tensor([[[-0.5]], [[1.5]], [[0.5]]])).flatten().tolist() == [0, 255, 128]
    with pytest.raises(MediaError, match=r"shape \(3, 2, 2\) contains NaN"):
        media.to_uint8(torch.full((3, 2, 2), float("nan")))


def test_transparency_lies_over_white_and_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert media.read_image(tmp_path / "clear.png").min() == 1
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    torch.testing.assert_close(media.read_image(tmp_path / "deep.png")[0, 0], torch.tensor([0.0, 32768 / 65535, 1.0]))


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".tiff", ".ppm"])
def test_pictures_of_palettes_and_plain_bits_are_read(tmp_path: Path, suffix: str) -> None:
    assert suffix not in media.SUFFIXES
    flags = np.zeros((4, 6, 3), dtype=np.uint8)
    flags[:, 3:] = (255, 0, 128)
    Image.fromarray(flags).save(tmp_path / f"a{suffix}")
    read = media.read_image(tmp_path / f"a{suffix}")
    torch.testing.assert_close(read, torch.from_numpy(flags).permute(2, 0, 1) / 255, rtol=0, atol=0)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert media.read_image(tmp_path / "turned.jpg").shape == (3, 4, 2)


def test_broken_files_name_file_and_decoder(tmp_path: Path) -> None:
    media.write_image(noise(64, 64), tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(MediaError, match=rf"cut\.png: Pillow [\d.]+ could not decode its {len(whole) // 2} bytes"):
        media.read_image(tmp_path / "cut.png")
    with pytest.raises(MediaError, match=r"empty\.png: the file is empty \(0 bytes\)"):
        media.read_image(tmp_path / "empty.png")
    with pytest.raises(MediaError, match=r"text\.png: Pillow [\d.]+ does not recognise .* b'not a pi'"):
        media.read_image(tmp_path / "text.png")
    with pytest.raises(MediaError, match=r"gone\.png: cannot be read \(No such file or directory\)"):
        media.read_image(tmp_path / "gone.png")
    with pytest.raises(MediaError, match=r"a\.bmp: cannot write '.bmp' pictures; use one of \.jpeg, \.jpg, \.png"):
        media.write_image(noise(), tmp_path / "a.bmp")


def test_every_truncation_of_a_file_is_a_media_error_or_a_picture() -> None:
    buffer = io.BytesIO()
    media.to_pil(noise(9, 9)).save(buffer, format="PNG")
    data = buffer.getvalue()
    for end in range(0, len(data), 7):
        try:
            media.decode_image(data[:end], "part")
        except MediaError as error:
            assert str(error).startswith("part: ")


def test_batches_need_one_size(tmp_path: Path) -> None:
    for name, size in (("a", 8), ("b", 8), ("c", 9)):
        media.write_image(noise(8, size), tmp_path / f"{name}.png")
    assert media.read_images([tmp_path / "a.png", tmp_path / "b.png"]).shape == (2, 3, 8, 8)
    with pytest.raises(MediaError, match=r"c\.png is 9 x 8 but .*a\.png is 8 x 8"):
        media.read_images([tmp_path / "a.png", tmp_path / "c.png"])
    with pytest.raises(MediaError, match="the list of paths is empty"):
        media.read_images([])


def test_data_uri_decodes_to_the_same_pixels_and_shrinks() -> None:
    picture = noise()
    head, body = media.data_uri(picture).split(",")
    assert head == "data:image/png;base64"
    torch.testing.assert_close(media.decode_image(base64.b64decode(body), "uri"), picture)
    small = media.decode_image(base64.b64decode(media.data_uri(picture, longest=10).split(",")[1]), "uri")
    assert small.shape == (3, 6, 10)


def test_contact_sheet_places_every_picture_and_writes_captions() -> None:
    images = torch.stack([torch.full((3, 8, 8), v) for v in (0.2, 0.4, 0.6)])
    bare = np.asarray(media.contact_sheet(images, columns=2, scale=4))
    assert bare.shape == (2 * 32 + 3 * 12, 2 * 32 + 3 * 12, 3)
    assert [bare[20, 20, 0], bare[20, 64, 0], bare[64, 20, 0]] == [51, 102, 153]
    assert (bare[64, 64] == 255).all()
    captioned = media.contact_sheet(images, ["one", "two words", "x" * 90], columns=2, scale=20)
    assert captioned.height > 2 * 160 + 3 * 12
    assert (np.asarray(captioned)[12 + 162 : 12 + 180] < 100).any(), "no ink below the first row"
    with pytest.raises(MediaError, match="3 pictures and 1 captions"):
        media.contact_sheet(images, ["one"])
