"""Queries run elsewhere: in a process that can be killed, which is the only time limit that always holds."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_WORKER = Path(__file__).with_name("_sql_worker.py")
_GRACE = 1.0  # seconds between SQLite's own time limit and the kill
_START = 30.0  # seconds a fresh process may need
_LONGEST = 64 << 20  # bytes of one answer
_KEPT = 1024  # results remembered


@dataclass(frozen=True)
class Result:
    """Rows, or the fault that stands in their place with its reason."""

    rows: tuple[tuple[Any, ...], ...] = ()
    fault: Literal["", "unreadable", "failed", "limit"] = ""
    why: str = ""


class SqlProcess:
    """Runs queries one at a time, each within `seconds`, `rows` rows and `memory` MiB."""

    def __init__(self, seconds: float, rows: int, memory: int) -> None:
        self.seconds, self.rows, self.memory = seconds, rows, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._kept: OrderedDict[tuple[str, str], Result] = OrderedDict()

    def run(self, database: Path, query: str, seconds: float | None = None) -> Result:
        """The result of `query`; never raises for what the query does."""
        seconds = self.seconds if seconds is None else seconds
        request = {
            "database": str(database),
            "query": query,
            "seconds": seconds,
            "rows": self.rows,
            "memory": self.memory,
        }
        fresh = self._process is None
        process = self._started()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            line = self._line(process, seconds + _GRACE + (_START if fresh else 0.0))
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self.close()
            why = f"killed after {seconds + _GRACE:g} s, or ended by a limit of its own"
            return Result(fault="limit", why=why)
        answer = json.loads(line)
        if "fault" in answer:
            return Result(fault=answer["fault"], why=answer["why"])
        return Result(tuple(tuple(map(_value, row)) for row in answer["rows"]))

    def remembered(self, database: Path, query: str, seconds: float) -> Result:
        """`run`, once for each database and query: for the right answers, which come again with every group."""
        key = (str(database), query)
        if key not in self._kept:
            self._kept[key] = self.run(database, query, seconds)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def close(self) -> None:
        """Kill the process; the next query starts another."""
        if self._process is not None:
            self._end()
        self._process = self._end = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            # -I -S: no site packages and no environment, so it starts in a few hundredths of a second.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the run, which may still need its rows
            )
            self._end = weakref.finalize(self, _kill, self._process)
        return self._process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
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


def _value(value: Any) -> Any:
    return bytes.fromhex(value["bytes"]) + b"%d" % value["rest"] if isinstance(value, dict) else value
