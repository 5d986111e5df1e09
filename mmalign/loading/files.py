"""The files of a model's folder, looked at before anything is built from them.

A half-copied checkpoint otherwise fails deep inside a loader with a message about tensors, and a folder may ask for
code of its own: `auto_map` (transformers), `trust_remote_code` in what a configuration passes on (open_clip).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmalign.core.errors import CheckpointError, MmalignWarning

LONGEST_CONFIG = 16 << 20  # bytes of a configuration
LONGEST_TABLE = 512 << 20  # bytes of a vocabulary or a list of shards; the largest published ones have about 40 MB
_TABLES = ("tokenizer.json", "vocab.json", "added_tokens.json", ".index.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_CLASSES = ("tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type")


def read_json(file: Path, advice: str) -> dict[str, Any]:
    """The object in a JSON file of a bounded size; CheckpointError, with `advice`, where there is none."""
    check_size(file)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing; {advice}.") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); {advice}.") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: holds a {type(entries).__name__}, not an object; {advice}.")
    return entries


def check_size(file: Path) -> None:
    """Raise CheckpointError where `file` is no plain file, or longer than any such file is."""
    if not file.exists():
        return
    most = LONGEST_TABLE if file.name.endswith(_TABLES) else LONGEST_CONFIG
    if not file.is_file():
        raise CheckpointError(f"{file}: is no plain file, and nothing else is read.")
    if (size := file.stat().st_size) > most:
        raise CheckpointError(f"{file}: has {size:,} bytes, more than the {most:,} that are read of such a file.")


def check_folder(folder: Path) -> None:
    """Raise CheckpointError where a JSON file of `folder` is too long, or asks for code of the folder's own.

    Classes that transformers knows are read by transformers: then the folder's code is not needed, which a warning
    says.
    """
    for file in sorted(folder.glob("*.json")):
        check_size(file)
        if not file.name.endswith(_TABLES):
            _refuse_code(file)


def _refuse_code(file: Path) -> None:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); copy it again.") from error
    for place, value in _entries(entries):
        if place.rpartition(".")[2] == "trust_remote_code" and value:
            raise CheckpointError(f"{file}: {place} asks to run code of a checkpoint, which is never run; remove it.")
    code = entries.get("auto_map") if isinstance(entries, dict) else None
    if not code:
        return
    if not _known(entries):
        raise CheckpointError(
            f"{file}: needs code that comes with the checkpoint (auto_map: {_shown(code)}), which is never run; use a "
            "checkpoint whose classes transformers has itself."
        )
    warnings.warn(
        f"{file}: names code of its own (auto_map: {_shown(code)}), which is not run; transformers' class is used.",
        MmalignWarning,
        stacklevel=2,
    )


def _known(config: dict[str, Any]) -> bool:
    """Has transformers the class that a configuration with an `auto_map` is of?"""
    import transformers

    from mmalign.loading.exclusive import loading

    with loading():
        if kind := config.get("model_type"):
            return kind in transformers.CONFIG_MAPPING
        named = [str(config[key]) for key in _CLASSES if config.get(key)]
        return bool(named) and all(
            any(hasattr(transformers, f"{name.removesuffix('Fast')}{end}") for end in ("", "Fast")) for name in named
        )


def _shown(code: object) -> str:
    code_names = ", ".join(str(value) for value in code.values()) if isinstance(code, dict) else str(code)
    return code_names if len(code_names) <= 80 else f"{code_names[:80]}…"


def _entries(entry: object, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted place, value) of nested objects and lists."""
    waiting = [(place, entry)]
    while waiting:
        here, value = waiting.pop()
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            name = f"{here}.{key}" if here else str(key)
            yield name, inner
            waiting.append((name, inner))


def check_component(folder: Path, variant: str | None = None) -> None:
    """Raise CheckpointError unless every file of one component's folder is there, whole, and free of code."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: missing, but model_index.json lists it; copy or download it again.")
    check_folder(folder)
    of_variant = list(folder.glob(f"*.safetensors.index.{variant}.json")) if variant else []
    for listing in of_variant or folder.glob("*.safetensors.index.json"):
        for shard in _shards(listing):
            if not (folder / shard).exists():
                raise CheckpointError(f"{folder / shard}: missing, but {listing.name} lists it; download it again.")
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        check_safetensors(file)
    if weights or not (folder / "config.json").exists():
        return  # whole, or a part without weights (a tokenizer, a scheduler)
    wanted = f" (variant {variant})" if variant else ""
    raise CheckpointError(
        refused_pickles(folder) or f"{folder}: no *.safetensors weights{wanted}; copy or download them again."
    )


def _shards(listing: Path) -> set[str]:
    """The files of a list of shards, each a name within its folder."""
    places = read_json(listing, "copy it again").get("weight_map", {})
    shards = set(places.values()) if isinstance(places, dict) else {places}
    if odd := [name for name in shards if not isinstance(name, str) or Path(name).name != name]:
        raise CheckpointError(f"{listing}: lists {odd[0]!r}, which is no file of its own folder; copy it again.")
    return shards


def refused_pickles(folder: Path) -> str:
    """What to say where only pickled weights lie in `folder`; "" where none do."""
    pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in _PICKLED]
    if not pickled:
        return ""
    return (
        f"{folder}: has only pickled weights ({', '.join(pickled)}), which are never opened; load them where you trust "
        "them and save_pretrained(folder, safe_serialization=True)."
    )


def check_safetensors(file: Path) -> None:
    """Raise CheckpointError where the header is damaged or the file is not as long as its header says.

    safetensors itself reads at most 100 MB of header.
    """
    from safetensors import SafetensorError, safe_open

    if file.exists() and not file.is_file():
        raise CheckpointError(f"{file}: is no plain file, and nothing else is read.")
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: truncated or damaged ({size:,} bytes; {error}). Delete it and copy or download it again."
        ) from error
