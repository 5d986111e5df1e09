"""What every frozen model needs: its weights and preprocessing, a name for both, and a device to compute on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch

from mmalign.core.errors import DataError
from mmalign.core.files import absent_asset, local_path
from mmalign.rewards.models.pickled import conversion

Stamp = tuple[tuple[str, int], ...]


def local_or_hub(checkpoint: str) -> Path | None:
    """The local file or folder, or None for what is written as a Hub id; DataError if it is neither."""
    if (place := local_path(checkpoint)) is None and (
        checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "assets/"))
    ):
        where = f"{checkpoint}: no such file or folder, and not a Hub id (org/name)."
        raise DataError(" ".join(filter(None, [where, absent_asset(checkpoint)])))
    return place


def weight_files(folder: Path | None) -> tuple[Path, ...]:
    """The safetensors of a local folder (none for a Hub id). DataError if there are none."""
    if folder is None:
        return ()
    if files := tuple(sorted(folder.glob("*.safetensors"))):
        return files
    pickled = sorted(file for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    how = f": {conversion(pickled[0])}" if pickled else ""
    raise DataError(
        f"{folder}: no .safetensors weights in it; convert the checkpoint (pickled weights are not read){how}."
    )


def stamp(place: Path | None) -> Stamp:
    """Changes when a file of the checkpoint does: part of the key under which a loaded model is shared."""
    if place is None:
        return ()
    files = place.iterdir() if place.is_dir() else [place]
    return tuple(sorted((file.name, file.stat().st_mtime_ns) for file in files))


def weights_digest(name: str, files: Iterable[Path], preprocessing: str, beside: str = "") -> str:
    """Names the weights by their bytes (by `name` where they are not local) and how they are read, on every machine.

    `preprocessing` names how inputs are prepared, `beside` configuration and tokenizer (`beside_digest`).
    """
    files = tuple(files)
    digest = hashlib.sha256(f"{name} {preprocessing}".encode() if not files else b"")
    for file in files:
        stat = file.stat()
        digest.update(_read_once(file, stat.st_mtime_ns, stat.st_size))
    digest.update(beside.encode())
    return f"{digest.hexdigest()[:16]}-{preprocessing}"


_BESIDE = ("*.json", "*.jinja", "*.txt", "*.model")  # configuration, tokenizer, template, processor
_UNREAD = ("provenance.json", "README.txt", "LICENSE.txt")  # by any model


def beside_digest(*folders: Path | None) -> str:
    """Names what lies beside weights and changes their answers: configuration, tokenizer, chat template."""
    digest, any_file = hashlib.sha256(), False
    for folder in folders:
        if folder is None or not folder.is_dir():
            continue
        for file in sorted({file for pattern in _BESIDE for file in folder.glob(pattern) if file.name not in _UNREAD}):
            digest.update(f"{file.name} ".encode() + _read_once(file, file.stat().st_mtime_ns, file.stat().st_size))
            any_file = True
    return digest.hexdigest()[:16] if any_file else ""


@lru_cache(maxsize=256)
def _read_once(file: Path, changed: int, size: int) -> bytes:
    """SHA-256 of a file, read again only when it changes: a cache asks for it at every call of a reward."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def move_to_inputs(module: torch.nn.Module, inputs: torch.device) -> torch.device:
    """The device on which `module` computes for what lies on `inputs`, with `module` there.

    It follows its inputs to an accelerator and never leaves one for the CPU, where captions and files are.
    """
    place = next(module.parameters()).device
    if place == inputs or (inputs.type == "cpu" and place.type != "cpu"):
        return place
    module.to(inputs)
    return inputs
