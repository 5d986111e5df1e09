"""Every error mmalign raises on purpose.

    MmalignError
    ├── ConfigError        every fault of a run file at once, each with its place
    ├── CapabilityError    this objective cannot drive that policy, or that reward cannot judge this modality
    ├── DataError          file, row and column, what was found and what is expected
    ├── MediaError         the file, what decoded it and what it contained
    ├── ScoreError         which reward failed, on how many rows, and why
    ├── CheckError         a run-start check failed (ratio 1, KL 0): the station that differs
    ├── Diverged           a model whose numbers are no longer finite: where, at which step, and what to lower
    ├── OutOfMemory        the phase, its shapes, and the options to lower
    ├── CheckpointError    the folder that could not be read or written, and why
    ├── PackageError       installed packages that do not load together, and the command that mends it
    └── MissingExtra       the optional dependency to install

A message says what happened, where, and what to do. Lists of valid values are computed.
"""

from __future__ import annotations

import difflib
import importlib.util
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class MmalignError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback, exit 2."""


class MmalignWarning(UserWarning):
    """What is cut, left out or taken instead without an error: said once, in a sentence."""


class ConfigError(MmalignError, ValueError):
    """A run file that cannot be built; the message lists every fault and its place."""

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class CapabilityError(MmalignError, TypeError):
    """Two components that cannot work together; the message names what would fit."""


class DataError(MmalignError, ValueError):
    """A data file or row that cannot be used."""


class MediaError(MmalignError, ValueError):
    """An image or audio file that cannot be decoded, or values out of range."""


class ScoreError(MmalignError, RuntimeError):
    """A reward that failed on too many rows to go on."""


class CheckError(MmalignError, RuntimeError):
    """A check at the start of a run failed: the policy does not agree with itself or with its reference."""


class Diverged(MmalignError, RuntimeError):
    """A model whose outputs or losses are no longer finite numbers."""


class OutOfMemory(MmalignError, RuntimeError):
    """An allocation that failed, on the GPU or the CPU."""


class CheckpointError(MmalignError, OSError):
    """A checkpoint that is incomplete, foreign, or could not be written."""


class PackageError(MmalignError, ImportError):
    """An installed package that does not load beside the others."""


class MissingExtra(MmalignError, ImportError):
    """An optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'mmalign[{extra}]'")


def importable(package: str) -> bool:
    """Can `package` be imported? A mere folder of that name, as trackers leave beside a run, is no package."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


class _Brief(reprlib.Repr):
    """Python's own bounded `repr`: few entries, few levels, and no number of thousands of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxstring, self.maxother = 3, 12, 6, 120, 80

    def repr_int(self, x: int, level: int) -> str:
        """Return a number, unless it is longer than Python prints."""
        return super().repr_int(x, level) if x.bit_length() < 4096 else f"<a number of {x.bit_length()} bits>"


def shown(value: object, length: int = 300) -> str:
    """Return a value as one short line of a message, whatever its size and depth."""
    text = _Brief().repr(dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def as_list(value: object, name: str, example: str) -> Any:
    """`value`, which must hold several; a text in its place is a ConfigError that shows how to write it."""
    if isinstance(value, str | bytes | Mapping):
        raise ConfigError(f"{name}: got {shown(value, 80)} where a list is meant; write e.g. {example}.")
    return value


def together(errors: Sequence[MmalignError]) -> MmalignError:
    """One error of several: of their kind where all are of one, else a ConfigError with a fault for each."""
    if len(errors) == 1:
        return errors[0]
    faults = [fault for error in errors for fault in getattr(error, "faults", [str(error)])]
    kinds = {type(error) for error in errors}
    for kind in (CapabilityError, DataError, CheckpointError, MediaError):
        if kinds == {kind}:
            return kind("\n".join(faults))
    return ConfigError(faults)


def all_faults(faults: Sequence[str], shown: int = 20) -> DataError:
    """One error of many rows or files: the first `shown` faults, a line each, and how many more there are."""
    rest = [f"… and {len(faults) - shown} more."] if len(faults) > shown else []
    return DataError("\n".join([*faults[:shown], *rest]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for a near miss, else ""."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
