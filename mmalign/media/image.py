"""Pictures between files and tensors, and sheets of pictures for people.

In memory a picture is float32 sRGB (3, H, W) in [0, 1], a batch (B, 3, H, W); uint8 exists only at the edge, here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8

from mmalign.core.errors import MediaError
from mmalign.core.files import write_beside
from mmalign.core.regular import read_regular, unreadable, written
from mmalign.core.tensor import Tensor
from mmalign.media.bounds import BYTES, PIXELS
from mmalign.media.colour import in_srgb
from mmalign.media.kinds import FORMATS, opened

if TYPE_CHECKING:
    from PIL import ImageFont
    from PIL.Image import Image

__all__ = [
    "SUFFIXES",
    "contact_sheet",
    "data_uri",
    "decode_image",
    "enlarged",
    "from_pil",
    "picture_size",
    "read_image",
    "read_images",
    "read_pixels",
    "read_pixels_of",
    "to_pil",
    "to_uint8",
    "write_image",
]

T = TypeVar("T")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

ORIENTATION = 0x0112  # of EXIF; from 5 on the sides are swapped
PAPER, INK, FAINT, LINE = (255, 255, 255), (28, 30, 34), (110, 114, 122), (222, 224, 228)


def to_uint8(images: Num[Tensor, "*B C H W"]) -> UInt8[Tensor, "*B C H W"]:
    """[0, 1] → {0, …, 255}, rounded to nearest and clamped; the inverse of `/ 255`. NaN is a MediaError."""
    if images.dtype == torch.uint8:
        return images.detach().cpu()
    images = images.detach().float().cpu()
    if torch.isnan(images).any():
        raise MediaError(f"a picture of shape {tuple(images.shape)} contains NaN; the generator or decoder diverged.")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(image: Num[Tensor, "3 H W"] | UInt8[np.ndarray, "3 H W"]) -> Image:
    """One picture (float in [0, 1] or uint8) as a PIL image."""
    from PIL import Image

    if image.ndim != 3 or image.shape[0] != 3:
        raise MediaError(f"expected one picture (3, H, W), got shape {tuple(image.shape)}.")
    pixels = image if isinstance(image, np.ndarray) else to_uint8(image).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def from_pil(picture: Image, ground: Sequence[float] = (1.0, 1.0, 1.0)) -> Float[Tensor, "3 H W"]:
    """Any PIL image as (3, H, W) in [0, 1] of sRGB: upright (EXIF), by its colour profile, 16-bit grey scaled.

    Transparency is laid over `ground`, red, green and blue in [0, 1].
    """
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise MediaError("its pixels are floating-point numbers of no fixed range; write it with 8 or 16 bits.")
    if picture.mode.startswith("I"):  # 16-bit grey: `convert` would clip it to 255
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise MediaError("its pixels are 32-bit numbers of no fixed range; write it with 8 or 16 bits.")
        grey = torch.from_numpy(values.astype(np.float32) / 65535)
        return grey.clamp(0, 1).expand(3, *grey.shape).contiguous()
    return torch.from_numpy(_opaque(picture, ground)).float() / 255


def _opaque(picture: Image, ground: Sequence[float] = (1.0, 1.0, 1.0)) -> UInt8[np.ndarray, "3 H W"]:
    """8-bit pixels of sRGB, transparency laid over `ground`."""
    from PIL import Image

    picture = in_srgb(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        colour = tuple(round(255 * part) for part in ground)
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (*colour, 255)), layer)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))


def _eight_bit(picture: Image) -> UInt8[np.ndarray, "3 H W"]:
    """What `to_uint8` makes of `from_pil`; without PyTorch where the file has 8 bits."""
    from PIL import ImageOps

    if picture.mode.startswith(("F", "I")):
        return to_uint8(from_pil(picture)).numpy()
    return _opaque(ImageOps.exif_transpose(picture))


def decode_image(data: bytes, name: str, ground: Sequence[float] = (1.0, 1.0, 1.0)) -> Float[Tensor, "3 H W"]:
    """The picture in `data` (the first, of several); `name` says in errors where the bytes came from.

    The bytes decide the format (one of `kinds.FORMATS`), not the name. Transparency is laid over `ground`, red, green
    and blue in [0, 1].

    Raises:
        MediaError: empty, foreign, truncated or corrupt bytes, or more pixels than `bounds.PIXELS`.
    """
    return _decoded(data, name, partial(from_pil, ground=ground))


def _decoded(data: bytes, name: str, made: Callable[[Image], T]) -> T:
    with _opened(data, name) as picture:
        try:
            picture.load()
            return made(picture)
        except MediaError as error:
            raise MediaError(f"{name}: {error}") from None
        except Exception as error:  # Pillow raises whatever foreign bytes make it stumble over
            raise _undecoded(name, len(data), error) from None


def picture_size(source: bytes | Path, name: str) -> tuple[int, int]:
    """(height, width) upright, from the header alone; MediaError where there is no picture, or a too large one."""
    from PIL import Image

    with _opened(source, name) as picture:
        width, height = picture.size
        try:
            # A PNG's own `getexif` decodes it, to look behind its pixels.
            turned = Image.Image.getexif(picture).get(ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception as error:  # likewise
            raise _undecoded(name, 0, error) from None
    return (width, height) if turned else (height, width)


def _opened(source: bytes | Path, name: str) -> Any:
    """The picture, of which nothing but the header was read."""
    import PIL
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Path) and (why := unreadable(source, BYTES.most)):
        raise MediaError(f"{name}: {'the file ' if why.startswith('is empty') else ''}{why}.")
    if not isinstance(source, Path) and not source:
        raise MediaError(f"{name}: the file is empty (0 bytes).")
    size, most = source.stat().st_size if isinstance(source, Path) else len(source), PIXELS.most
    try:
        picture = opened(source if isinstance(source, Path) else io.BytesIO(source), most)
    except Image.DecompressionBombError:
        raise MediaError(
            f"{name}: its header claims more pixels than the {most:,} that are read (set {PIXELS.variable})."
        ) from None
    except UnidentifiedImageError:
        begin = f" (they begin with {source[:8]!r})" if isinstance(source, bytes) else ""
        raise MediaError(
            f"{name}: Pillow {PIL.__version__} does not recognise a picture in its {size} bytes{begin}; "
            f"read are {', '.join(FORMATS)}{_more()}; write it as {', '.join(sorted(SUFFIXES))}."
        ) from None
    except Exception as error:  # likewise
        raise _undecoded(name, size, error) from None
    try:
        PIXELS.require(picture.width * picture.height, name, f"a picture of {picture.width} x {picture.height}")
    except MediaError:
        picture.close()
        raise
    return picture


def _more() -> str:
    """How pictures of telephones are read, where they are not yet."""
    return "" if "HEIF" in FORMATS else ", and HEIC with pillow-heif (pip install pillow-heif)"


def _undecoded(name: str, size: int, error: Exception) -> MediaError:
    import PIL

    return MediaError(
        f"{name}: Pillow {PIL.__version__} could not decode its {size} bytes: {error or type(error).__name__}."
    )


def read_image(path: Path | str) -> Float[Tensor, "3 H W"]:
    """A picture file (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PPM) as (3, H, W) in [0, 1].

    Raises:
        MediaError: the file is missing, no regular one, unreadable, empty, truncated, too large or not a picture; names
            it and the decoder.
    """
    return _read(path, from_pil)


def _read(path: Path | str, made: Callable[[Image], T]) -> T:
    name = written(path)
    try:
        return _decoded(read_regular(path, BYTES.most), name, made)
    except MediaError:
        raise
    except ValueError as error:
        raise MediaError(f"{name}: {error}.") from None


def read_pixels(path: Path | str) -> UInt8[np.ndarray, "3 H W"]:
    """`read_image` for people to look at: 8 bits, and no PyTorch is needed."""
    return _read(path, _eight_bit)


def read_images(paths: Sequence[Path | str]) -> Float[Tensor, "B 3 H W"]:
    """Files of one size as a batch; pictures of different sizes are a MediaError that names two of them."""
    pictures = [read_image(path) for path in paths]
    _require_one_size(paths, pictures)
    return torch.stack(pictures)


def read_pixels_of(paths: Sequence[Path | str]) -> UInt8[np.ndarray, "B 3 H W"]:
    """`read_images` for people to look at, as `read_pixels`."""
    pictures = [read_pixels(path) for path in paths]
    _require_one_size(paths, pictures)
    return np.stack(pictures)


def _require_one_size(paths: Sequence[Path | str], pictures: Sequence[Any]) -> None:
    if not pictures:
        raise MediaError("a batch needs at least one picture; the list of paths is empty.")
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            first, other = (f"{p.shape[2]} x {p.shape[1]}" for p in (pictures[0], picture))
            raise MediaError(f"{path} is {other} but {paths[0]} is {first}; a batch needs one size.")


def write_image(image: Num[Tensor, "3 H W"] | UInt8[np.ndarray, "3 H W"] | Image, path: Path | str) -> None:
    """Write one picture; the suffix of `path` decides the format; the file is whole or absent."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(f"{path}: cannot write '{path.suffix}' pictures; use one of {', '.join(sorted(SUFFIXES))}.")
    picture = to_pil(image) if isinstance(image, Tensor | np.ndarray) else image
    with write_beside(path) as beside:
        picture.save(beside, format=SUFFIXES[path.suffix.lower()], **_quality(path.suffix))


def data_uri(
    image: Num[Tensor, "3 H W"] | UInt8[np.ndarray, "3 H W"] | Image, suffix: str = ".png", longest: int = 0
) -> str:
    """The picture inside a string that HTML shows without a file; shrunk to `longest` pixels a side if given."""
    picture = to_pil(image) if isinstance(image, Tensor | np.ndarray) else image.copy()
    if longest and max(picture.size) > longest:
        picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, format=SUFFIXES[suffix], **_quality(suffix))
    return f"data:image/{SUFFIXES[suffix].lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _quality(suffix: str) -> dict[str, int]:
    return {} if suffix.lower() == ".png" else {"quality": 92}


def enlarged(picture: Image, least: int) -> Image:
    """A copy, enlarged by whole pixels (so that nothing blurs) until its longer side has at least `least`."""
    return _times(picture, max(1, -(-least // max(picture.size))))


def contact_sheet(
    images: Num[Tensor, "B 3 H W"], captions: Sequence[str] | None = None, columns: int = 0, scale: int = 0
) -> Image:
    """All pictures on one white sheet, each with its caption below.

    Args:
        images: in [0, 1] (or uint8).
        captions: one per picture, may hold line breaks; long ones are wrapped to the picture's width. None: no text.
        columns: pictures a row; 0: about square.
        scale: pixels drawn per pixel; 0: so that a picture is at least 160 pixels wide and captions stay readable.
    """
    from PIL import Image, ImageDraw

    captions = [""] * len(images) if captions is None else captions
    if not len(images) or len(captions) != len(images):
        raise MediaError(f"{len(images)} pictures and {len(captions)} captions: a sheet needs one caption per picture.")
    columns = min(columns or math.ceil(len(images) ** 0.5), len(images))
    tiles = [_enlarge(image, scale) for image in to_uint8(images)]
    width, height = tiles[0].size
    font, gap = _font(13), 12
    texts = [_wrapped(caption, font, width) for caption in captions]
    band = max(len(text) for text in texts) * 17 + (6 if any(texts) else 0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + band + gap) + gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + band + gap)
        sheet.paste(tile, (x, y))
        pen.rectangle((x - 1, y - 1, x + width, y + height), outline=LINE)
        for line, words in enumerate(text):
            pen.text((x, y + height + 4 + 17 * line), words, fill=INK, font=font)
    return sheet


def _enlarge(image: UInt8[Tensor, "3 H W"], scale: int) -> Image:
    picture = to_pil(image)
    return _times(picture, scale or max(1, -(-160 // picture.width)))


def _times(picture: Image, factor: int) -> Image:
    from PIL.Image import Resampling

    return picture.resize((picture.width * factor, picture.height * factor), Resampling.NEAREST)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:  # not installed: Pillow's own scalable face
        return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines of `text` at most `width` pixels wide; a single longer word is cut with an ellipsis."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if font.getlength(longer) <= width:
                line = longer
                continue
            lines += [line] if line else []
            line = word if font.getlength(word) <= width else _cut(word, font, width)
        lines.append(line)
    return lines


def _cut(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while word and font.getlength(word + "…") > width:
        word = word[:-1]
    return word + "…"
