"""A million prompts: seconds and memory until the first batch, each in a process of its own.

With `BEFORE=<folder of another state of the code>` that one is measured beside this one.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = 1_000_000


def measure(rows: int = ROWS) -> dict[str, Any]:
    """By kind of file and share held out: processor seconds, and GB of resident memory above the imports."""
    found: dict[str, Any] = {"rows": rows}
    states = {"now": "", **({"before": before} if (before := os.environ.get("BEFORE")) else {})}
    with tempfile.TemporaryDirectory() as folder:
        for path in _written(Path(folder), rows):
            for held_out, (state, code) in itertools.product((0.0, 0.1), states.items()):
                script = Path(__file__).read_text()  # by itself: no folder but the state's own leads to mmalign
                command = [sys.executable, "-c", script, str(path), str(held_out)]
                where = code or str(Path(__file__).parents[2])
                done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=True)
                case = found.setdefault(f"{path.suffix[1:]}, held out {held_out:g}", {})
                case[state] = json.loads(done.stdout.splitlines()[-1])
    return found


def _written(folder: Path, rows: int) -> list[Path]:
    import pyarrow
    import pyarrow.parquet

    numbers = range(rows)
    columns: dict[str, Any] = {
        "prompt": [f"a photo of thing {i} on a table beside a window, in the style of {i % 97}" for i in numbers],
        "answer": [i % 5 for i in numbers],
        "tag": [f"t{i % 11}" for i in numbers],
    }
    paths = [folder / f"p{suffix}" for suffix in (".jsonl", ".csv", ".parquet")]
    with paths[0].open("w") as file:
        for i in numbers:
            file.write(json.dumps({name: column[i] for name, column in columns.items()}) + "\n")
    with paths[1].open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    pyarrow.parquet.write_table(pyarrow.table(columns), paths[2])
    return paths


def resident() -> float:
    """GB of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def peak() -> float:
    """GB of memory that it had at most; `getrusage` counts what its parent had when it was started, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def first_batch(path: str, held_out: float) -> dict[str, float]:
    """Read a file of prompts and draw a batch of 8 of them."""
    import pyarrow.parquet

    from mmalign.data.batches import Batches
    from mmalign.data.sources.prompts import Prompts

    assert pyarrow.parquet and Batches
    before, start, clock = resident(), time.process_time(), time.perf_counter()
    items = Prompts(path, held_out=held_out).training_items()
    next(Batches(items, 8, seed=0))
    return {
        "processor_seconds": round(time.process_time() - start, 1),
        "seconds": round(time.perf_counter() - clock, 1),
        "resident_gb": round(resident() - before, 3),
        "peak_gb": round(peak() - before, 3),
    }


if __name__ == "__main__":
    print(json.dumps(first_batch(sys.argv[1], float(sys.argv[2]))))
