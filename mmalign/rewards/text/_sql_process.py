"""Queries run elsewhere: in a process that can be killed, which is the only time limit that always holds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmalign.rewards.text._line_process import LineProcess

_WORKER = Path(__file__).with_name("_sql_worker.py")
_GRACE = 1.0  # seconds between SQLite's own time limit and the kill
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
        # -S: no site packages, so it starts in a few hundredths of a second.
        self._process = LineProcess(_WORKER, ("-I", "-S"))
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
        answer = self._process.ask(request, seconds + _GRACE)
        if answer is None:
            why = f"killed after {seconds + _GRACE:g} s, or ended by a limit of its own"
            return Result(fault="limit", why=why)
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
        self._process.close()


def _value(value: object) -> Any:
    return bytes.fromhex(value["bytes"]) + b"%d" % value["rest"] if isinstance(value, dict) else value
