"""What a file is: a picture or a sound by its content, never by its name alone."""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, Literal

from mmalign.core.regular import unreadable
from mmalign.media.av_sound import opened_by_av
from mmalign.media.bounds import PIXELS

__all__ = [
    "FOREIGN",
    "FORMATS",
    "NOUNS",
    "READ",
    "SOUNDS",
    "Kind",
    "bound_pillow",
    "hinted",
    "kind_of_data",
    "kind_of_file",
    "named_like_a_file",
    "opened",
]

_HEIF = find_spec("pillow_heif") is not None

Kind = Literal["image", "audio"]
NOUNS: dict[str, str] = {"image": "picture", "audio": "sound"}  # what messages call each kind

# Pillow's names; HEIF is there with pillow-heif.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", *(("HEIF",) if _HEIF else ()))
SOUNDS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")  # soundfile's; OGG holds Opus too
READ: dict[str, tuple[str, ...]] = {"image": FORMATS, "audio": SOUNDS}

_IMAGE_SUFFIXES = (
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .dib .tif .tiff .avif .jp2 .j2k .jpf .ppm .pgm .pbm .pnm"
)
_SOUND_SUFFIXES = ".wav .wave .bwf .rf64 .w64 .aif .aiff .aifc .au .snd .caf .flac .ogg .oga .opus .mp3 .mp2 .mpga"
_FOREIGN = {
    "image": ".heic .heif .jxl .svg .psd .ico .tga .exr .hdr .raw .dng .cr2 .nef .arw .eps",
    "audio": ".m4a .m4b .aac .mp4 .wma .amr .ac3 .mka .webm .mid .midi .mov .mkv .avi .spx .ape .wv",
}
FOREIGN: dict[str, Kind] = {suffix: kind for kind, all_ in _FOREIGN.items() for suffix in all_.split()}  # type: ignore[misc]
_HINTS: dict[str, Kind] = {
    **dict.fromkeys(_IMAGE_SUFFIXES.split(), "image"),
    **dict.fromkeys(_SOUND_SUFFIXES.split(), "audio"),
    **FOREIGN,
}


def hinted(name: str) -> Kind | None:
    """What a file of this name should be, by its suffix; None for all others."""
    return _HINTS.get(PurePath(name).suffix.lower()) if named_like_a_file(name) else None


def named_like_a_file(text: str) -> bool:
    """May `text` be the name of a file, as far as its characters go?"""
    return 0 < len(text) <= 4096 and not any(c in text for c in "\n\r\0")


def kind_of_file(path: Path) -> Kind | None:
    """What the file at `path` is; where nothing can be read of it, what its name says; None for neither.

    Only headers are read.
    """
    if not unreadable(path):
        with path.open("rb") as file:
            if header_kind := _recognised(file):
                return header_kind
    return hinted(path.name)


def kind_of_data(data: bytes) -> Kind | None:
    """The same of the bytes of a cell."""
    return _recognised(io.BytesIO(data))


def _recognised(file: io.BufferedIOBase) -> Kind | None:
    import soundfile
    from PIL import Image

    most = PIXELS.most
    try:
        with opened(file, most):
            return "image"
    except Image.DecompressionBombError:
        return "image"
    except Exception:  # Pillow's readers raise whatever foreign bytes make them stumble over
        file.seek(0)

    try:
        with soundfile.SoundFile(file) as sound:
            return "audio" if sound.format in SOUNDS else None
    except Exception:  # not a sound of a format that it knows
        file.seek(0)
    if (other := opened_by_av(file)) is None:
        return None
    other.close()
    return "audio"


def bound_pillow() -> None:
    """Hold Pillow itself to `bounds.PIXELS`, for what others of this process open with it (uploads)."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = -(-PIXELS.most // 2)  # it refuses twice its bound


def opened(file: Any, most: int) -> Any:
    """A picture whose header was read (no pixels), of one of `FORMATS`; raises what Pillow raises.

    Whoever goes on to decode it bounds its pixels by `most`: Pillow's own bound is kept out of the way.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if Image.MAX_IMAGE_PIXELS and most > 2 * Image.MAX_IMAGE_PIXELS:  # it refuses twice its bound
        Image.MAX_IMAGE_PIXELS = -(-most // 2)
    if not all(name in Image.OPEN for name in FORMATS):
        Image.init()
        if _HEIF:
            import pillow_heif

            pillow_heif.register_heif_opener()
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
