"""What a person at a terminal sees of an error that was raised on purpose: a sentence."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmalign.core.errors import MmalignError
from mmalign.core.signals import exit_code, interrupting

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def stop_as_sentence() -> Iterator[None]:
    """Inside it the signals of `signals.ENDING` end the program with a sentence: what the interrupted work had to say.

    Of several processes that a launcher started the first one speaks.
    """
    try:
        with interrupting():
            yield
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":
            with suppress(OSError):  # the terminal may be gone
                print(str(stopped) or "stopped.", file=sys.stderr)
        raise SystemExit(exit_code(stopped)) from None


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Inside it such errors, missing files and Ctrl-C end the program with a sentence; others with their traceback."""
    try:
        with stop_as_sentence():
            yield
    except MmalignError as error:
        print(f"error: {error}" if "\n" not in str(error) else f"errors:\n{error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        way = " Free some space there and try again." if error.errno in FULL else ""
        print(f"error: {place}{error.strerror}.{way}", file=sys.stderr)
        raise SystemExit(2) from None
