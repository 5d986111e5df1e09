"""References of a run, kept in its directory: a run that goes on compares with what it began with.

Each is a `.safetensors` of statistics (and of rows, where a reward needs them) with a hash of what it was made of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mmalign.core.errors import DataError
from mmalign.rewards.reference_sets.source import Source
from mmalign.rewards.reference_sets.statistics import Reference, read_reference, write_reference

__all__ = ["KeptReferences"]

log = logging.getLogger("mmalign")


@dataclass
class KeptReferences:
    """The references in `folder`.

    Args:
        folder: of one run; it need not be there.
        read: take what lies there; else all are made anew.
        writes: write what is made, and say which sources have changed (the first of several processes).
    """

    folder: Path
    read: bool = True
    writes: bool = True
    _made: dict[str, tuple[Source, str, Reference]] = field(default_factory=dict, repr=False)
    _changed: set[str] = field(default_factory=set, repr=False)

    def get(self, source: Source, make: Callable[[], Reference]) -> Reference:
        """The reference that lies here, or the one that `make` gives, which `save` keeps.

        Raises:
            DataError: what lies here is damaged.
        """
        name = source.name()
        if name in self._made:
            return self._made[name][2]
        file = self._file(name)
        if not (self.read and file.is_file()):
            digest = source.digest() if self.writes else ""  # of before: what changes meanwhile is then noticed
            self._made[name] = (source, digest, make().on_cpu(source.rows))
            return self._made[name][2]
        try:
            reference, facts = read_reference(file, source.encoder, source.unit)
        except DataError as error:
            raise DataError(f"{error} Remove {file}, and it is made anew of {source.path}.") from error
        if self.writes and source.path not in self._changed and facts.get("digest") != source.digest():
            self._say_changed(source.path)
        return reference

    def save(self) -> None:
        """Write those that were made, each whole or not at all."""
        for name, (source, digest, reference) in self._made.items() if self.writes else ():
            write_reference(self._file(name), reference, source.encoder, {"source": source.path, "digest": digest})

    def _say_changed(self, path: str) -> None:
        """Called once for each path, however many rewards compare with it."""
        log.warning(
            "%s: has changed since this run began, which goes on comparing with what was there then (%s); start a "
            "new run to compare with what is there now.",
            *(path, self.folder),
        )
        self._changed.add(path)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
