"""Tar files, folders and pictures for tests of what reads them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.media import odd


def png(value: int) -> bytes:
    """A grey picture of 4 × 4 pixels."""
    return odd.encoded(Image.fromarray(np.full((4, 4, 3), value, np.uint8)), "PNG")


def tar(path: Path, *members: tuple[str, bytes]) -> str:
    """A tar file of these members, in their order."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def folder(path: Path, captions: Mapping[str, str]) -> str:
    """Pictures with .txt files beside them, by name."""
    path.mkdir(parents=True, exist_ok=True)
    for number, (name, text) in enumerate(captions.items()):
        (path / f"{name}.png").write_bytes(png(number * 20))
        (path / f"{name}.txt").write_text(text)
    return str(path)


def jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """One row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
