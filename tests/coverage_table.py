"""`python -m tests.coverage_table coverage.json`: the lines of each folder of the package, and the share that ran."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def folder_of(file: str) -> str:
    """The folder of the package that a file lies in, two deep: `mmalign/rewards/engine`."""
    return "/".join(Path(file).parent.parts[:3])


def by_folder(files: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """The statements of each folder, and how many of them ran; `files` is that entry of coverage's JSON report."""
    statements: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    for file, report in files.items():
        statements[folder_of(file)] += report["summary"]["num_statements"]
        ran[folder_of(file)] += report["summary"]["covered_lines"]
    return {folder: (statements[folder], ran[folder]) for folder in sorted(statements)}


def table(folders: Mapping[str, tuple[int, int]]) -> str:
    """One line per folder that has statements, and one for all of them."""
    statements, ran = zip(*folders.values(), strict=True)
    rows = [(name, *counts) for name, counts in {**folders, "all": (sum(statements), sum(ran))}.items() if counts[0]]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:<{width}}  {n:>6} of {count:>6}  {n / count:>6.1%}" for name, count, n in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(by_folder(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["files"])))
