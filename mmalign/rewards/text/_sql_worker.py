"""A process of its own that runs one query after another, read only; started as a script, so it imports no mmalign.

In: a JSON line {database, query, seconds, rows, memory}. Out: a JSON line, {"rows": [[…]]} or {"fault", "why"} with
fault `unreadable` (no query, or one that would write or reach outside), `failed` (SQLite's own error) or `limit`.
"""

import json
import sqlite3
import sys
import time
import urllib.parse
import zlib
from typing import Any

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_REACH_OUTSIDE = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
_SYNTAX = (
    "syntax error",
    "incomplete input",
    "unrecognized token",
    "one statement at a time",
    "null character",
    "not authorized",
)
_LIMIT = ("interrupted", "out of memory", "too big", "too complex", "database or disk is full")
_LONGEST_VALUE = 10_000_000  # bytes
_CELL = 100_000  # characters of one value that are sent on
_STEPS = 1_000  # of SQLite's virtual machine between two looks at the clock


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if str(second).lower() in _REACH_OUTSIDE else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _limit_process(memory: int, seconds: float) -> None:
    """The system's own limits, in case this process is left alone or SQLite's are passed by."""
    try:
        import resource
    except ImportError:  # Windows
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + 2 * seconds) + 2, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, ((memory << 20) + (512 << 20), hard))


def _opened(request: dict[str, Any]) -> sqlite3.Connection:
    path = urllib.parse.quote(request["database"])
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA hard_heap_limit = {int(request['memory']) << 20}")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    deadline = time.monotonic() + request["seconds"]
    db.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    db.set_authorizer(_authorize)
    return db


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value[:_CELL].hex(), "rest": zlib.crc32(value)}
    return (
        value
        if not isinstance(value, str) or len(value) <= _CELL
        else f"{value[:_CELL]}… {zlib.crc32(value.encode(errors='replace'))}"
    )


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    _limit_process(request["memory"], request["seconds"])
    db = _opened(request)
    try:
        cursor = db.execute(request["query"])
        if cursor.description is None:
            return {"fault": "unreadable", "why": "the statement is no query"}
        rows = cursor.fetchmany(request["rows"] + 1)
        if len(rows) > request["rows"]:
            return {"fault": "limit", "why": f"more than {request['rows']} rows"}
        return {"rows": [[_plain(value) for value in row] for row in rows]}
    finally:
        db.close()


def _fault(error: BaseException) -> dict[str, Any]:
    why = str(error)
    if isinstance(error, MemoryError) or any(word in why for word in _LIMIT):
        return {"fault": "limit", "why": why or "out of memory"}
    unreadable = isinstance(error, ValueError | sqlite3.Warning) or any(word in why for word in _SYNTAX)
    return {"fault": "unreadable" if unreadable else "failed", "why": f"{type(error).__name__}: {why}"}


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError, OverflowError) as error:
            answer = _fault(error)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
