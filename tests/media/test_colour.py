"""Pictures with a colour profile, on grounds, and of telephones."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image, ImageCms

from mmalign.core.errors import MmalignWarning
from mmalign.media.image import decode_image, from_pil, picture_size
from tests.media import odd

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def test_srgb_itself_changes_no_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    data = odd.encoded(Image.fromarray(pixels), "PNG", icc_profile=SRGB)
    assert torch.equal(decode_image(data, "x"), torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_wide_gamut_is_converted_by_the_closed_form(alpha: bool) -> None:
    """Display P3 differs from sRGB by its primaries: linear light times one matrix (CSS Color 4, section 12)."""
    matrix = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    colours = np.array([[200, 80, 60], [90, 140, 100], [128, 128, 128], [120, 100, 180]], np.uint8)
    linear = matrix @ linear_of(colours / 255).T
    expected = encoded_of(linear.clip(0, 1)).T
    picture = Image.fromarray(colours[None])
    if alpha:
        picture.putalpha(255)
    made = decode_image(odd.encoded(picture, "PNG", icc_profile=display_p3()), "x")[:, 0].T.numpy()
    assert np.abs(made - expected).max() < 2.5 / 255
    assert np.abs(made - colours / 255).max() > 8 / 255


def test_transparency_survives_the_profile_and_lies_over_the_ground() -> None:
    layer = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    for profile in (None, display_p3()):
        picture = Image.open(io.BytesIO(odd.encoded(layer, "PNG", icc_profile=profile)))
        torch.testing.assert_close(from_pil(picture, (0.0, 0.0, 1.0))[:, 0, 0], torch.tensor([0.0, 0, 1]))
        assert from_pil(picture).min() == 1


@pytest.mark.parametrize("profile", [b"no profile at all", LAB])
def test_a_profile_that_cannot_be_used_is_left_out_and_told(profile: bytes) -> None:
    data = odd.encoded(Image.new("RGB", (4, 4), (10, 200, 30)), "PNG", icc_profile=profile)
    with pytest.warns(MmalignWarning, match="colour profile is left out"):
        made = decode_image(data, "x")
    torch.testing.assert_close(made[:, 0, 0] * 255, torch.tensor([10.0, 200, 30]))


def test_pictures_of_telephones() -> None:
    buffer, picture = io.BytesIO(), Image.new("RGB", (64, 48), (200, 40, 60))
    pillow_heif.from_pillow(picture).save(buffer, quality=95)
    made = decode_image(buffer.getvalue(), "x")
    assert picture_size(buffer.getvalue(), "x") == (48, 64) == tuple(made.shape[1:])
    torch.testing.assert_close(made[:, 20, 20] * 255, torch.tensor([200.0, 40, 60]), atol=4, rtol=0)


def linear_of(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded_of(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def display_p3() -> bytes:
    """The profile, written by its definition: a matrix of adapted primaries and sRGB's curve (ICC.1, section 10)."""
    columns = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2919, 0.6922, 0.0419), b"bXYZ": (0.1572, 0.0666, 0.7841)}
    tags = {name: xyz(*values) for name, values in columns.items()}
    tags[b"wtpt"] = xyz(0.9642, 1.0, 0.8249)
    curve = b"para\0\0\0\0\0\3\0\0" + b"".join(fixed(v) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    name = b"Display P3\0"
    tags[b"desc"] = b"desc\0\0\0\0" + len(name).to_bytes(4, "big") + name + b"\0" * 78
    tags[b"cprt"] = b"text\0\0\0\0none\0"
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        table += tag + (at + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content + b"\0" * (-len(content) % 4)
    size = at + len(body)
    head = size.to_bytes(4, "big") + b"\0\0\0\0" + b"\2\x40\0\0" + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head.ljust(128, b"\0") + len(tags).to_bytes(4, "big") + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(fixed(v) for v in values)


def fixed(value: float) -> bytes:
    return round(value * 65536).to_bytes(4, "big", signed=True)
