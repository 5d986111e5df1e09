"""The command line of a pipeline: run files, and changes of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def files_and_changes(
    told: str | None, defaults: Sequence[Path], words: Sequence[str] | None = None
) -> tuple[list[Path], tuple[str, ...]]:
    """Run files (as many as there are defaults, which stand where none is named) and `key.path=value` changes.

    Args:
        told: what `--help` says first.
        defaults: the pipeline's own run files.
        words: of the command line; None is this process's.
    """
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="RUN.yaml|KEY.PATH=VALUE")
    given = parser.parse_args(words).words
    files = [Path(word) for word in given if "=" not in word]
    if len(files) not in (0, len(defaults)):
        names = " ".join(path.name for path in defaults)
        parser.error(f"name {len(defaults)} run file(s), in place of {names}, or none; found {len(files)}")
    return files or list(defaults), tuple(word for word in given if "=" in word)
