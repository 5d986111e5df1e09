"""Is a picture's file whole? Its end tells, so that few files are decoded for it: of a download that broke off."""

from __future__ import annotations

import os
from pathlib import Path

from mmalign.media.image import decode_image

__all__ = ["require_whole"]

_TAIL = 65_536  # bytes; cameras write something behind their pictures


def require_whole(source: bytes | Path, name: str) -> None:
    """Decode a PNG, JPEG or GIF that has no end within its last bytes; of other files nothing is read.

    Raises:
        MediaError: it cannot be decoded.
    """
    head, tail = _head_and_tail(source)
    if not _ends(head, tail):
        decode_image(source.read_bytes() if isinstance(source, Path) else source, name)


def _ends(head: bytes, tail: bytes) -> bool:
    """Does a file end as its format says? True of other formats."""
    if head.startswith(b"\x89PNG"):
        return b"IEND" in tail
    if head.startswith(b"\xff\xd8\xff"):  # its end comes behind its last scan, and not that of a thumbnail before it
        return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
    return tail.rstrip(b"\0").endswith(b";") if head.startswith(b"GIF8") else True


def _head_and_tail(source: bytes | Path) -> tuple[bytes, bytes]:
    if isinstance(source, bytes):
        return source[:8], source[-_TAIL:]
    with source.open("rb") as file:
        head, size = file.read(8), os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        return head, file.read(_TAIL)
