"""The command line of a pipeline: run files and changes of them, where the run goes, and how it goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmalign.core.config import is_change
from mmalign.core.errors import ConfigError


@dataclass(frozen=True)
class Given:
    """What a command line says: run files, `key.path=value` changes, and the folder of the run.

    `resume` is that folder where the run in it is to go on, else None.
    """

    files: list[Path]
    changes: tuple[str, ...]
    out: Path
    resume: Path | None


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` says first what the module says of itself."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def given(description: str | None, defaults: Sequence[Path], out: Path, words: Sequence[str] | None = None) -> Given:
    """Read the command line of a pipeline that trains.

    Args:
        description: what `--help` says first.
        defaults: the pipeline's own run files; they stand where none is named.
        out: the run directory where none is named.
        words: of the command line; None is this process's.
    """
    reader = parser(description)
    reader.add_argument("words", nargs="*", metavar="RUN.yaml|KEY.PATH=VALUE")
    add_folder(reader, out)
    args = reader.parse_intermixed_args(words)
    files, changes = files_and_changes(args.words, defaults, reader.error)
    if args.resume and args.out:
        reader.error(f"--out {args.out}: a resumed run goes on in its own folder; leave it away")
    return Given(files, changes, args.resume or args.out or out, args.resume)


def add_folder(reader: argparse.ArgumentParser, out: Path) -> None:
    """Add `--out` and `--resume`."""
    reader.add_argument("--out", type=Path, metavar="DIR", help=f"run directory; {out} by default")
    reader.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in this directory")


def files_and_changes(
    words: Sequence[str], defaults: Sequence[Path], error: Callable[[str], Any]
) -> tuple[list[Path], tuple[str, ...]]:
    """Run files (as many as there are defaults, which stand where none is named) and `key.path=value` changes.

    A word that is a file is a run file, also with a "=" in its name. `error` is told of another number of files.
    """
    changes = tuple(word for word in words if is_change(word))
    files = [Path(word) for word in words if not is_change(word)]
    if len(files) not in (0, len(defaults)):
        names = " ".join(path.name for path in defaults)
        error(f"name {len(defaults)} run file(s), in place of {names}, or none; found {len(files)}")
    return files or list(defaults), changes


def options(description: str | None, words: Sequence[str] | None = None, **each: dict[str, Any]) -> Any:
    """What the command line says to a pipeline that has nothing but options; each is what `add_argument` takes."""
    reader = parser(description)
    for name, option in each.items():
        reader.add_argument(f"--{name}", **option)
    return reader.parse_args(words)


def at_least_one(text: str) -> int:
    """A whole number from 1 on, for `type=`."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def same_file(resume: Path | None, run: Path) -> Path:
    """The run file to read: that of the run to go on with, if there is one.

    Raises:
        ConfigError: no run there.
    """
    if resume is None:
        return run
    if not (resume / "run.yaml").is_file():
        raise ConfigError(f"--resume {resume}: no run.yaml in it; name a directory that holds a run.")
    return resume / "run.yaml"


def change(at: str, value: Any) -> str:
    """`at=value` for a run file; a path, or any plain data, is read there as what it is, whatever characters it has."""
    plain = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=sys.maxsize)
    return f"{at}={text.strip()[1:-1]}"
