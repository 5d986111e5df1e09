"""What a reference is made of, and where one that was made before may lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from mmalign.core.files import lasting, require_local
from mmalign.core.protocols import Encoder
from mmalign.media.folders import media_in
from mmalign.media.kinds import Kind

__all__ = ["Source", "Store", "Unit", "store", "stored_in"]

Unit = Literal["row", "frame"]


@dataclass(frozen=True)
class Source:
    """A reference that is asked for: what lies at `path` (a folder or a file), embedded by `encoder`.

    Texts are moved by `pairs`; `rows` says whether the embedded rows are needed besides their Gaussian.
    """

    path: str
    encoder: Encoder
    unit: Unit = "row"
    pairs: str = ""
    rows: bool = True

    def name(self) -> str:
        """A name of its own, the same from every folder that its paths are read in."""
        pairs = lasting(self.pairs) if self.pairs else ""
        facts = [lasting(self.path), pairs, self.unit, self.rows, self.encoder.fingerprint()]
        return f"{Path(self.path).stem}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"

    def digest(self) -> str:
        """A hash of the names and contents of its files."""
        place = require_local(self.path)
        kind: Kind = "audio" if "audio" in self.encoder.modalities else "image"
        files = media_in(place).of(kind) if place.is_dir() else [place]
        if self.pairs not in ("", "none"):
            files.append(require_local(self.pairs))
        whole = hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                whole.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
        return whole.hexdigest()


@runtime_checkable
class Store(Protocol):
    """Keeps references from one start of a run to the next."""

    def get(self, source: Source, make: Callable[[], Any]) -> Any:
        """The reference of `source`: the one that is kept, or what `make` gives."""
        ...


_STORE: ContextVar[Store | None] = ContextVar("where references are kept", default=None)


def store() -> Store | None:
    """Where the references of the rewards that are being loaded are kept; None outside of a run."""
    return _STORE.get()


@contextmanager
def stored_in(where: Store | None) -> Iterator[None]:
    """Inside it, references are taken from `where` (None: made of their sources)."""
    token = _STORE.set(where)
    try:
        yield
    finally:
        _STORE.reset(token)
