"""Score a long file part by part, in any number of processes: what was scored is kept, and never scored twice.

Beside OUT stands the folder `OUT.parts`: `scoring.json` says of what it is, and each file in it holds the lines of one
part, written whole or not at all. A process takes every part whose number is its own modulo the processes, and passes
over those that are there. When all are, the first process joins them to OUT, which is what one process would have
written, and removes the folder. A command that was stopped goes on when it is given again, in any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mmalign.core.errors import ConfigError
from mmalign.core.files import write_beside
from mmalign.run.score import unscored

ROWS = 256  # of a part: what is lost where a process is killed
WAIT = 0.2  # seconds between two looks at what other processes have written

Score = Callable[[Sequence[int]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Parts:
    """The parts of one scoring.

    Args:
        out: the file that they are joined to.
        rows: how many there are in all.
        of: what the lines hang on: the rows' digest, the reward, its options.
        size: rows of a part.
    """

    out: Path
    rows: int
    of: Mapping[str, Any]
    size: int = ROWS

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.rows // self.size)

    def file(self, part: int) -> Path:
        """Where the lines of a part lie."""
        return self.folder / f"{part:07d}.jsonl"

    def open(self, first: bool) -> int:
        """Make the folder, or look whether it is of the same scoring; returns how many parts are there already.

        Raises:
            ConfigError: it holds parts of another scoring.
        """
        wanted, record = {**self.of, "rows": self.rows, "part": self.size}, self.folder / "scoring.json"
        if not record.exists() and first:
            with write_beside(record) as beside:
                beside.write_text(json.dumps(wanted, indent=1, default=str) + "\n", encoding="utf-8")
        while not record.exists():  # the first process writes it
            time.sleep(WAIT)
        known = json.loads(record.read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps(wanted, default=str))
        if other := sorted(key for key in known.keys() | wanted.keys() if known.get(key) != wanted.get(key)):
            raise ConfigError(
                f"{self.folder}: holds parts of another scoring (another {', '.join(other)}); remove the folder, or "
                "name another --out."
            )
        return sum(self.file(part).exists() for part in range(self.count))

    def score(self, score: Score, process: int, processes: int, progress: Callable[[int, int], None]) -> None:
        """Score this process's parts that are not there yet; `progress` gets rows done and rows in all of them."""
        mine = range(process, self.count, processes)
        missing = [part for part in mine if not self.file(part).exists()]
        total = sum(len(self._rows(part)) for part in mine)
        done = total - sum(len(self._rows(part)) for part in missing)
        for part in missing:
            lines = score(self._rows(part))
            with write_beside(self.file(part)) as beside:
                beside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            done += len(lines)
            progress(done, total)

    def join(self) -> str:
        """Wait for all parts and write `out`; returns `unscored` of its lines.

        Every line names the same parts of a score, as where all rows are scored at once.
        """
        while missing := [part for part in range(self.count) if not self.file(part).exists()]:
            if not self.folder.exists():
                raise ConfigError(f"{self.folder}: was removed while it was waited for; start again.")
            time.sleep(WAIT if len(missing) < self.count else 5 * WAIT)
        names = dict.fromkeys(name for line in self._lines() for name in line.get("parts", ()))
        with write_beside(self.out) as beside, beside.open("w", encoding="utf-8") as file:
            note = unscored(self._copied(names, file))
        shutil.rmtree(self.folder)
        return note

    def _copied(self, names: Iterable[str], file: TextIO) -> Iterator[dict[str, Any]]:
        """Every line as it is written to `file`: with all parts of a score."""
        for line in self._lines():
            line["parts"] = {name: line["parts"].get(name) for name in names}
            file.write(json.dumps(line) + "\n")
            yield line

    def _rows(self, part: int) -> range:
        return range(part * self.size, min((part + 1) * self.size, self.rows))

    def _lines(self) -> Iterator[dict[str, Any]]:
        for part in range(self.count):
            with self.file(part).open(encoding="utf-8") as file:
                yield from map(json.loads, file)


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and sizes in a folder."""
    if file.is_dir():
        listing = sorted((path.name, path.stat().st_size) for path in file.iterdir() if path.is_file())
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


__all__ = ["Parts", "digest_of_file"]
