"""What encoders made of given media and texts, kept on the disk so that no run makes it twice.

A key is the hash of the exact input (the samples of a picture or sound as the encoder gets them, after any cut, fit or
resampling; the text) and of all that makes something of it: the weights and configuration of the encoders, the
adapter's options, the device, and the versions of the libraries. What differs in any of them is another entry; of
weights, evenly spread values are compared (`weights_sample`), not all. A random cut of a sound is found only where the
very same stretch comes again.

Entries are safetensors, each whole or absent, in `$MMALIGN_CACHE/encoded` (else the user's cache folder). When they are
more than the limit, those go first that were not read for longest. Several processes may use one folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from mmalign.core.files import cache_root, write_beside
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Audio, OutputOfKind

__all__ = ["EncodedStore", "Kept", "content_digest", "device_name", "digest_of", "machine", "weights_sample"]

log = logging.getLogger("mmalign")
Entry = Mapping[str, Tensor]
SAMPLED = 4096  # values of each weight that are read: those of retrained weights differ everywhere
LOWERED = 0.9  # of the limit is left when entries go, so that they do not go one by one


@dataclass
class EncodedStore:
    """Entries by key in `folder`, of together at most `limit` bytes."""

    limit: int
    folder: Path = field(default_factory=lambda: cache_root() / "encoded")
    hits: int = 0
    misses: int = 0
    _bytes: int | None = field(default=None, repr=False)
    _warned: set[str] = field(default_factory=set, repr=False)

    def summary(self) -> str:
        """A sentence on where entries lie, how much they take, and what becomes of them at the limit."""
        sizes = [size for _, size, _ in self._entries()]
        return (
            f"{self.folder} holds {sum(sizes) / 2**30:.3g} GiB in {len(sizes):,} entries, of at most "
            f"{self.limit / 2**30:.3g} GiB; beyond that, those go first that were not read for longest"
        )

    def read(self, key: str) -> dict[str, Tensor] | None:
        """Return the entry, on the CPU; None where there is none, or a damaged one, which is then written anew."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        try:
            entry = load_file(path)
            os.utime(path)
        except FileNotFoundError:
            self.misses += 1
            return None
        except (SafetensorError, OSError) as error:
            log.warning("%s: cannot be read (%s) and is made anew.", path, error)
            self.misses += 1
            return None
        self.hits += 1
        return entry

    def write(self, key: str, entry: Entry) -> None:
        """Keep an entry, whole or not at all; a disk that takes none is said once, and the run goes on without."""
        from safetensors.torch import save_file

        path = self._path(key)
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in entry.items()}
        size = sum(value.numel() * value.element_size() for value in tensors.values())
        if size > self.limit:
            self._say_once(
                "%s: an encoding of %.3g GiB is larger than the limit of %.3g GiB and is made anew each time.",
                *(self.folder, size / 2**30, self.limit / 2**30),
            )
            return
        try:
            with write_beside(path) as beside:
                save_file(tensors, beside)
            self._make_room(size)
        except OSError as error:
            log.warning("%s: nothing more is kept there (%s).", self.folder, error.strerror or error)
            self.limit = 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, added: int) -> None:
        self._bytes = sum(size for _, size, _ in self._entries()) if self._bytes is None else self._bytes + added
        if self._bytes <= self.limit:
            return
        entries, gone = sorted(self._entries()), 0
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= LOWERED * self.limit:
                break
            path.unlink(missing_ok=True)
            total, gone = total - size, gone + 1
        self._bytes = total
        if gone:
            self._say_once(
                "%s: reached its limit of %.3g GiB; %d encodings that were not read for longest were removed, and more "
                "will be. If a pass over the rows takes more than that, nothing is found again: raise the limit.",
                *(self.folder, self.limit / 2**30, gone),
            )

    def _say_once(self, sentence: str, *values: object) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            log.warning(sentence, *values)

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each entry was used last, its bytes and its place."""
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            yield stat.st_mtime, stat.st_size, path


@dataclass(frozen=True)
class Kept:
    """A store for one encoder: `made_by` is the hash of all that makes something of an input."""

    store: EncodedStore
    made_by: str

    def read(self, content: str) -> dict[str, Tensor] | None:
        """Return what was made of the input with this hash, on the CPU; None if nothing was."""
        return self.store.read(digest_of(self.made_by, content))

    def write(self, content: str, entry: Entry) -> None:
        """Keep what was made of the input with this hash."""
        self.store.write(digest_of(self.made_by, content), entry)

    def once(self, row: Tensor | Audio, encode: Callable[[OutputOfKind], Tensor]) -> Tensor:
        """Return what `encode` makes of a picture or sound of one row, or made of it before; on the CPU."""
        content = content_digest(row)
        if (entry := self.read(content)) is not None:
            return entry["made"]
        made = encode(row).cpu()
        self.write(content, {"made": made})
        return made

    def rows(self, outputs: Tensor | Audio, encode: Callable[[OutputOfKind], Tensor]) -> Tensor:
        """Return `encode` of a batch, each row made alone and once; on the CPU."""
        return torch.cat([self.once(outputs[at : at + 1], encode) for at in range(len(outputs))])


def machine() -> list[str]:
    """Name what numbers may depend on besides weights and inputs: the libraries' versions."""
    return [f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers")]


def device_name(device: torch.device | str) -> str:
    """Name the processor behind `device`."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else torch.device(device).type


def content_digest(row: Tensor | Audio) -> str:
    """Hash the exact samples of a picture (1, 3, H, W) or a sound of one row, with shape, type, rate and mask."""
    parts = [row] if isinstance(row, Tensor) else [row.samples, *([] if row.mask is None else [row.mask])]
    described = [(str(part.dtype), tuple(part.shape)) for part in parts]
    content = hashlib.sha256(repr((described, row.rate if isinstance(row, Audio) else None)).encode())
    for part in parts:
        content.update(part.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def digest_of(*facts: object) -> str:
    """Hash plain facts by how they are written."""
    return hashlib.sha256(json.dumps(facts, default=repr, sort_keys=True).encode()).hexdigest()


def weights_sample(modules: Sequence[Module]) -> str:
    """Hash configuration, names, shapes, types and evenly spread values of the weights of `modules`."""
    digest = hashlib.sha256()
    for module in modules:
        config = getattr(module, "config", {})
        plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        options = {name: value for name, value in plain.items() if not name.startswith("_")}
        digest.update(digest_of(type(module).__name__, options).encode())
        for name, value in module.state_dict().items():
            flat = value.detach().flatten()
            sampled = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(sampled.view(torch.uint8).numpy().tobytes() if sampled.numel() else b"")
    return digest.hexdigest()
