"""A script in a process of its own that answers JSON lines with JSON lines, and is killed where it takes too long.

The only time limit that always holds: signals need the main thread, and no library gives up inside its C code.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_START = 60.0  # seconds that a fresh process may need besides
_LONGEST = 64 << 20  # bytes of one answer


class LineProcess:
    """Asks `script` one question at a time, from any thread."""

    def __init__(self, script: Path, flags: Sequence[str] = ("-I",), greets: bool = False) -> None:
        """`flags` are Python's; a script that `greets` writes a line when it has imported what it needs."""
        self.script, self.flags, self.greets = script, tuple(flags), greets
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._fresh = True

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The answer, or None where there was none within `seconds` or the process ended: then it is killed."""
        with self._lock:
            answer = b""
            try:
                if (process := self._started()) is None:
                    return None
                patience = _START if self._fresh and not self.greets else 0.0
                self._fresh = False
                process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                answer = _line(process, seconds + patience)
            except OSError:
                pass
            finally:
                if not answer.endswith(b"\n"):
                    self._close()
            return json.loads(answer) if answer.endswith(b"\n") else None

    def close(self) -> None:
        """Kill the process; the next question starts another."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._end()
        self._process = self._end = None

    def _started(self) -> subprocess.Popen[bytes] | None:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._close()
        self._process = subprocess.Popen(
            [sys.executable, *self.flags, str(self.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the run, which may still need its rows
        )
        self._end = weakref.finalize(self, _kill, self._process)
        self._fresh = True
        if self.greets and not _line(self._process, _START).endswith(b"\n"):
            return None
        return self._process


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One line of its output; what there is of it when the time, or the room, is up."""
    deadline, parts, size = time.monotonic() + seconds, [], 0
    out = process.stdout.fileno()  # type: ignore[union-attr]
    with selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ)
        while size < _LONGEST and selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(out, 1 << 16)
            parts.append(part)
            size += len(part)
            if not part or part.endswith(b"\n"):
                break
    return b"".join(parts)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
