"""Files that are whole or absent, and names that resolve to folders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.core.errors import DataError


@contextmanager
def write_beside(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file path beside `path`; renamed over it on success, removed on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.replace(path)
        path.chmod(0o644)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def write_folder_beside(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` on success, is removed on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield beside
        beside.chmod(0o755)
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(retired / "x")
            beside.replace(path)
            shutil.rmtree(retired)
        else:
            beside.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def assets_root() -> Path:
    """Embedded models and prompts: $MMALIGN_ASSETS, a source checkout's `assets/`, or the installed copy."""
    if named := os.environ.get("MMALIGN_ASSETS"):
        return Path(named)
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "assets"
    return checkout if checkout.is_dir() else package / "_assets"


def local_path(reference: str, relative_to: Path | None = None) -> Path | None:
    """The existing local path that `reference` names, or None (then it may be a Hub id).

    Tried in order: beside the run file, as given, and `assets/…` among the embedded assets.
    """
    return next((path for path in _places(reference, relative_to) if path.exists()), None)


def require_local(reference: str, relative_to: Path | None = None) -> Path:
    """`local_path`, or a DataError that says everywhere it looked."""
    if (path := local_path(reference, relative_to)) is not None:
        return path
    looked = dict.fromkeys(str(place.absolute()) for place in _places(reference, relative_to))
    raise DataError(f"{reference}: no such file or folder; looked at {', '.join(looked)}.")


def lasting(reference: str, relative_to: Path | None = None) -> str:
    """`reference` as it means the same from every folder: absolute where only the current one leads to it."""
    if Path(reference).is_absolute() or (found := local_path(reference, relative_to)) is None:
        return reference
    elsewhere = [*_beside(reference, relative_to), *_embedded(reference)]
    same = any(place.exists() and place.samefile(found) for place in elsewhere)
    return reference if same else str(found.absolute())


def _places(reference: str, relative_to: Path | None) -> list[Path]:
    """Where `reference` may lie, the first choice first."""
    return [*_beside(reference, relative_to), Path(reference), *_embedded(reference)]


def _beside(reference: str, relative_to: Path | None) -> list[Path]:
    return [] if relative_to is None or Path(reference).is_absolute() else [relative_to / reference]


def _embedded(reference: str) -> list[Path]:
    named = reference == "assets" or reference.startswith("assets/")
    return [assets_root() / reference.removeprefix("assets").lstrip("/")] if named else []
