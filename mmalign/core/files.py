"""Files that are whole or absent, and names that resolve to folders.

Whatever mmalign writes is written under a name of its own beside its place (`.<name>.<8 hex digits>.part`), brought to
the disk, and only then renamed: neither a crash nor a power loss leaves half of it under the name that is read.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.core.errors import DataError

WHERE_ASSETS_ARE = (
    "The embedded models come with the repository and the source distribution, not with the wheel: "
    "set MMALIGN_ASSETS to the assets folder of one."
)
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>part|old)")
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF)  # of file systems that cannot sync a folder


@contextmanager
def write_beside(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file path beside `path`; on the disk and renamed over it on success, removed on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _name_beside(path, "part")
    try:
        beside.touch(exist_ok=False)  # with the mode that the umask leaves
        yield beside
        to_disk(beside)
        beside.replace(path)
        to_disk(path.parent)
    except Exception as error:
        _name_place(error, path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def write_folder_beside(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on the disk it takes the place of `path`, on any error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _name_beside(path, "part")
    try:
        beside.mkdir()
        yield beside
        tree_to_disk(beside)
        retired = _name_beside(path, "old")
        if path.exists():
            path.rename(retired)  # `recover` puts it back if this is as far as it gets
        beside.replace(path)
        to_disk(path.parent)
        shutil.rmtree(retired, ignore_errors=True)
    except Exception as error:
        _name_place(error, path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder that is then gone or whole, whenever the process ends; a failure is the caller's to judge."""
    leaving = _name_beside(path, "part")
    path.rename(leaving)
    shutil.rmtree(leaving)


def _name_place(error: Exception, path: Path) -> None:
    """A write that failed names the file that it was for; safetensors has an error of its own for it."""
    if type(error).__name__ == "SafetensorError":
        raise OSError(errno.EIO, str(error), str(path)) from error
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


def to_disk(path: Path) -> None:
    """Return when what `path` (a file or a folder's list of names) holds would survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def tree_to_disk(folder: Path) -> None:
    """`to_disk` of every file and folder in `folder`, and of itself."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not (file := Path(place) / name).is_symlink():
                to_disk(file)
        to_disk(Path(place))


def recover(folder: Path) -> list[str]:
    """Tidy `folder`, in which nobody else writes, after a process that was killed while it wrote there.

    A folder that was about to be replaced is back under its name, what was half written is removed. Returns the names
    of what was removed or put back.
    """
    leftovers = [(path, match) for path in _unfinished(folder) if (match := _UNFINISHED.fullmatch(path.name))]
    for path, match in leftovers:
        place = path.with_name(match["name"])
        if match["kind"] == "old" and not place.exists():
            path.rename(place)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [match["name"] for _, match in leftovers]


def _unfinished(folder: Path) -> list[Path]:
    """The outermost unfinished files and folders in `folder`, at any depth."""
    paths = []
    for place, folders, files in os.walk(folder):
        mine = [name for name in (*folders, *files) if _UNFINISHED.fullmatch(name)]
        paths += [Path(place) / name for name in mine]
        folders[:] = [name for name in folders if name not in mine]
    return paths


def _name_beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


def cache_root() -> Path:
    """What may be made again and is kept for later runs: $MMALIGN_CACHE, else `mmalign` in the user's cache folder."""
    if home := os.environ.get("MMALIGN_CACHE"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mmalign"


def assets_root() -> Path:
    """Embedded models and prompts: $MMALIGN_ASSETS, a source checkout's `assets/`, or the prompts of a wheel."""
    if named := os.environ.get("MMALIGN_ASSETS"):
        return Path(named)
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "assets"
    return checkout if checkout.is_dir() else package / "_assets"


def absent_asset(reference: str) -> str:
    """`WHERE_ASSETS_ARE` for an `assets/…` that is not here, where no embedded model is; else ""."""
    there = not reference.startswith("assets/") or local_path(reference) is not None
    return "" if there or any(assets_root().glob("*/provenance.json")) else WHERE_ASSETS_ARE


def local_path(reference: str, relative_to: Path | None = None) -> Path | None:
    """Return the existing local path that `reference` names, or None (then it may be a Hub id).

    Tried in order: beside the run file, as given, and `assets/…` among the embedded assets.
    """
    return next((path for path in _places(reference, relative_to) if path.exists()), None)


def require_local(reference: str, relative_to: Path | None = None) -> Path:
    """`local_path`, or a DataError that says everywhere it looked."""
    if (path := local_path(reference, relative_to)) is not None:
        return path
    looked = dict.fromkeys(str(place.absolute()) for place in _places(reference, relative_to))
    where = f"{reference}: no such file or folder; looked at {', '.join(looked)}."
    raise DataError(" ".join(filter(None, [where, absent_asset(reference)])))


def lasting(reference: str, relative_to: Path | None = None) -> str:
    """`reference` as it means the same from every folder: absolute where only the current one leads to it."""
    if Path(reference).is_absolute() or (path := local_path(reference, relative_to)) is None:
        return reference
    elsewhere = [*_beside(reference, relative_to), *_embedded(reference)]
    same = any(place.exists() and place.samefile(path) for place in elsewhere)
    return reference if same else str(path.absolute())


def _places(reference: str, relative_to: Path | None) -> list[Path]:
    """Where `reference` may lie, the first choice first."""
    return [*_beside(reference, relative_to), Path(reference), *_embedded(reference)]


def _beside(reference: str, relative_to: Path | None) -> list[Path]:
    return [] if relative_to is None or Path(reference).is_absolute() else [relative_to / reference]


def _embedded(reference: str) -> list[Path]:
    named = reference == "assets" or reference.startswith("assets/")
    return [assets_root() / reference.removeprefix("assets").lstrip("/")] if named else []
