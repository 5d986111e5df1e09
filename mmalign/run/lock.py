"""One process at a time writes into a run directory: a lock of the operating system, which ends with its process.

The lock lies on the folder itself. `in_use.json` in it only says who has the lock: a process that was killed may leave
that note behind, but no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmalign.core.errors import ConfigError

__all__ = ["locked"]

NOTE = "in_use.json"


@contextmanager
def locked(folder: Path, otherwise: str = "") -> Iterator[None]:
    """Inside it no other process, and no second run of this one, has `folder`; those that stayed empty are removed.

    Args:
        folder: to be written in; made with its parents where it is not there.
        otherwise: what one may do instead of waiting, as the end of the sentence.

    Raises:
        ConfigError: it is locked already; by whom and since when.
        OSError: it cannot be made.
    """
    made = [path for path in folder.parents if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: {_holder(folder)}{otherwise}.") from None
        except OSError:  # a file system that knows no locks
            pass
        note = folder / NOTE
        with suppress(OSError):  # a full disk is told by what must be written
            note.write_text(json.dumps(_this_process()), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):  # not empty
                note.unlink(missing_ok=True)
                for path in (folder, *made):
                    path.rmdir()
    finally:
        os.close(handle)


def _this_process() -> dict[str, Any]:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": os.getpid(), "host": platform.node(), "since": since}


def _holder(folder: Path) -> str:
    """Who has the lock, and how to wait for it; as much as its note says."""
    note = None
    for _ in range(20):  # who has just taken the lock writes its note in the next moment
        with suppress(OSError, ValueError):
            note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
            break
        time.sleep(0.1)
    if not isinstance(note, Mapping) or not {"pid", "host", "since"} <= set(note):
        return "another process is writing here; wait until it ends, or stop it"
    here = note["host"] == platform.node()
    if here and note["pid"] == os.getpid():
        return f"this process is already writing here, since {note['since']}; wait until that ends"
    where, how = ("", f" (kill {note['pid']})") if here else (f" on {note['host']}", " there")
    return f"process {note['pid']}{where} has been writing here since {note['since']}; wait until it ends, stop it{how}"
