"""The command line of a pipeline: run files, and changes of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mmalign.core.config import is_change


def files_and_changes(
    told: str | None, defaults: Sequence[Path], words: Sequence[str] | None = None
) -> tuple[list[Path], tuple[str, ...]]:
    """Run files (as many as there are defaults, which stand where none is named) and `key.path=value` changes.

    A word that is a file is a run file, also with a "=" in its name.

    Args:
        told: what `--help` says first.
        defaults: the pipeline's own run files.
        words: of the command line; None is this process's.
    """
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="RUN.yaml|KEY.PATH=VALUE")
    given = parser.parse_args(words).words
    changes = tuple(word for word in given if is_change(word))
    files = [Path(word) for word in given if not is_change(word)]
    if len(files) not in (0, len(defaults)):
        names = " ".join(path.name for path in defaults)
        parser.error(f"name {len(defaults)} run file(s), in place of {names}, or none; found {len(files)}")
    return files or list(defaults), changes


def change(at: str, value: Any) -> str:
    """`at=value` for a run file; a path, or any plain data, is read there as what it is, whatever characters it has."""
    plain = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=sys.maxsize)
    return f"{at}={text.strip()[1:-1]}"
