"""Does the query in the answer return what the right query returns? Run read only, in a process that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmalign.core.files import require_local
from mmalign.core.options import AtLeastOne, NotNegative, Positive
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.columns import from_data
from mmalign.rewards.functional import same_table
from mmalign.rewards.parsing import Unreadable, is_ordered, query
from mmalign.rewards.text._sql_process import Result, SqlProcess

__all__ = ["SqlExecution"]

_PATIENCE = 10  # times the limit for the right query, which is ours


@dataclass
class SqlExecution(RowRule):
    """1 for the right result, `wrong` for another, `failed` where SQLite refuses or a limit is passed, else PARSE_FAIL.

    PARSE_FAIL, -1, is an answer without a query: prose, a syntax error, several statements, or a statement that would
    write, attach or set anything. Results are equal as multisets of rows, as sequences where the right query orders
    them at its top level. The tiers are a reconstruction of SQL-R1-like rewards. `parts`: `executes`, `matches`.

    The database is opened read only by a separate process with an authorizer that lets queries read and nothing else.

    A query that returns a constant can be right by accident: name several databases with different contents.

    Args:
        column: of `Prompt.meta`: the right query.
        database: column with the path of an SQLite file, or a list of such: then the result must be right on each.
        folder: relative paths start here; "name" also finds "name/name.sqlite", the layout of Spider and BIRD.
        failed: value of a query that does not run to its end.
        wrong: value of another result.
        free_columns: columns may come in any order.
        tolerance: of numbers, relative and absolute.
        seconds: of one query; a second later its process is killed.
        rows: of one result.
        memory: of SQLite, in MiB.
    """

    column: str = "sql"
    database: str = "database"
    folder: str = ""
    failed: float = -0.5
    wrong: float = 0.0
    free_columns: bool = True
    tolerance: NotNegative = 1e-6
    seconds: Positive = 2.0
    rows: AtLeastOne = 10_000
    memory: AtLeastOne = 256
    modalities = frozenset({"text"})
    range = (-1.0, 1.0)
    differentiable = False
    deterministic = False  # what passes a time limit on a busy machine need not on an idle one

    def __post_init__(self) -> None:
        if not -1 <= self.failed <= self.wrong <= 1:
            raise ValueError(f"-1 <= failed <= wrong <= 1, got {self.failed} and {self.wrong}")
        if min(self.seconds, self.rows, self.memory) <= 0:
            raise ValueError("seconds, rows and memory are positive")
        if self.folder:
            require_local(self.folder)

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return self.column, self.database

    @cached_property
    def process(self) -> SqlProcess:
        """Where queries run; started by the first."""
        return SqlProcess(self.seconds, self.rows, self.memory)

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where the right query of a row is none or a database is not there; it is not run yet."""
        right, _ = self._facts(prompt)
        from_data(self.column, lambda: query(right))

    def _facts(self, prompt: Prompt) -> tuple[str, list[Path]]:
        """The right query and the databases of a row."""
        right, named = prompt.meta[self.column], prompt.meta[self.database]
        files = list(named) if isinstance(named, list | tuple) else [named]
        if not isinstance(right, str) or not files or not all(isinstance(name, str) and name for name in files):
            raise ValueError(
                f"Prompt.meta['{self.column}'] is a query and Prompt.meta['{self.database}'] a path or a list of them; "
                f"found {str(right)[:60]!r} and {str(named)[:60]!r}"
            )
        return right, [self._file(name) for name in files]

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The value and parts of one answer."""
        written = query(output)
        right, databases = self._facts(prompt)
        wanted = [self._right(file, right) for file in databases]
        matches = 1.0
        for file, truth in zip(databases, wanted, strict=True):
            result = self.process.run(file, written)
            if result.fault == "unreadable":
                raise Unreadable(result.why)
            if result.fault:
                return self.failed, {"executes": 0.0, "matches": 0.0}
            matches *= float(self._same(result.rows, truth.rows, is_ordered(right)))
        return 1.0 if matches else self.wrong, {"executes": 1.0, "matches": matches}

    def _same(self, rows: Sequence[Sequence[object]], truth: Sequence[Sequence[object]], ordered: bool) -> bool:
        return same_table(rows, truth, ordered, self.free_columns, self.tolerance)

    def _right(self, file: Path, sql: str) -> Result:
        result = self.process.remembered(file, sql, _PATIENCE * self.seconds)
        if result.fault:
            raise ValueError(f"Prompt.meta['{self.column}'] does not run on {file}: {result.why}")
        return result

    def _file(self, name: str) -> Path:
        base = require_local(self.folder) if self.folder else Path()
        candidates = [base / name, base / name / f"{name}.sqlite"]
        if (file := next((path for path in candidates if path.is_file()), None)) is None:
            raise ValueError(f"Prompt.meta['{self.database}']: no such file: {' or '.join(map(str, candidates))}")
        return file
