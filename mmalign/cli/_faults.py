"""What a person at a terminal sees of an error that was raised on purpose: a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmalign.core.errors import MmalignError


@contextmanager
def stop_told() -> Iterator[None]:
    """Inside it Ctrl-C ends the program with a sentence: what the interrupted work had to say, if anything."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "stopped.", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def faults_told() -> Iterator[None]:
    """Inside it such errors, missing files and Ctrl-C end the program with a sentence; others with their traceback."""
    try:
        with stop_told():
            yield
    except MmalignError as error:
        print(f"error: {error}" if "\n" not in str(error) else f"errors:\n{error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        raise SystemExit(2) from None
