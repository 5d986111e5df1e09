"""A diffusers pipeline from a Hub id, a local folder, or an embedded asset: one path, safetensors only, files checked.

The files are looked at before anything is built, because a half-copied checkpoint otherwise fails deep inside a loader
with a message about tensors.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path


def open_pipeline(
    pipeline: str,
    model: str,
    dtypes: dict[str, torch.dtype],
    *,
    revision: str | None = None,
    variant: str | None = None,
    absent: Collection[str] = (),
    optional: Collection[str] = (),
) -> Any:
    """Build the diffusers pipeline class named `pipeline` from `model`, frozen and in evaluation mode, on the CPU.

    `dtypes` maps component names (and "default") to dtypes; `absent` components are not loaded and become None;
    `optional` ones become None where the checkpoint does not list them.
    Raises CheckpointError naming the file or component at fault.
    """
    import diffusers

    kind = getattr(diffusers, pipeline)
    folder = checkpoint_folder(kind, model, revision, variant, absent)
    listed = check_checkpoint(folder, pipeline, variant, absent)
    missing = dict.fromkeys({*absent, *(name for name in optional if name not in listed)})
    if "requires_safety_checker" in inspect.signature(kind.__init__).parameters:
        missing["requires_safety_checker"] = False  # type: ignore[assignment]
    try:
        pipe = kind.from_pretrained(
            folder, dtype=dtypes, variant=variant, use_safetensors=True, local_files_only=True, **missing
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder}: {pipeline} could not be built from it: {error}") from error
    for component in modules(pipe).values():
        component.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def modules(pipe: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by component name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def checkpoint_folder(
    kind: Any, model: str, revision: str | None = None, variant: str | None = None, absent: Collection[str] = ()
) -> Path:
    """The local folder of `model`; a Hub id is downloaded (or found in the Hub cache) first, without `absent` parts."""
    wanted = "a pipeline folder (with model_index.json)"
    advice = f"diffusers' {kind.__name__}.from_single_file(...).save_pretrained(folder) makes one."
    skipped = dict.fromkeys(absent)  # components passed by hand are not downloaded

    def download() -> Path:
        return Path(kind.download(model, revision=revision, variant=variant, use_safetensors=True, **skipped))

    return model_folder(model, wanted, advice, download)


def model_folder(model: str, wanted: str, advice: str, download: Callable[[], Path]) -> Path:
    """The existing folder `model`, or what `download()` gives for a Hub id; CheckpointError says what was `wanted`."""
    if (found := local_path(model)) is not None:
        if found.is_dir():
            return found
        raise CheckpointError(f"{found}: is a file; {wanted} or a Hub id is needed. {advice}")
    if model.startswith(("/", "./", "../", "~", "assets/")) or model.count("/") > 1:
        kind = wanted.partition(" (")[0].partition(" ")[2]  # without its article
        raise CheckpointError(f"{model}: no such folder; give an existing {kind} or a Hub id (owner/name).")
    try:
        return download()
    except Exception as error:  # the Hub client raises many unrelated kinds, all meaning "not to be had"
        raise CheckpointError(
            f"{model}: not a local folder, and the Hub did not give it: {error}. "
            "Check the name and the network, log in where the model is gated, or download it to a folder first."
        ) from error


def check_checkpoint(
    folder: Path, pipeline: str, variant: str | None = None, absent: Collection[str] = ()
) -> list[str]:
    """The components that `folder` lists; CheckpointError unless they are whole and make up a `pipeline`.

    Of weights only the headers are read. `absent` components are not looked at.
    """
    index = _read_json(folder / "model_index.json", "a pipeline folder has it at its top: give that folder")
    if (found := index.get("_class_name")) != pipeline:
        raise CheckpointError(f"{folder}: holds a {found}, this adapter drives {pipeline}.{_fitting(found)}")
    listed = [n for n, entry in index.items() if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None]
    for name in listed:
        if name not in absent:
            check_component(folder / name, variant)
    return listed


def check_component(folder: Path, variant: str | None = None) -> None:
    """Raise CheckpointError unless every weight file of one component's folder is there and whole."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: missing, but model_index.json lists it; copy or download it again.")
    of_variant = list(folder.glob(f"*.safetensors.index.{variant}.json")) if variant else []
    for listing in of_variant or folder.glob("*.safetensors.index.json"):
        for shard in set(_read_json(listing, "copy it again").get("weight_map", {}).values()):
            if not (folder / shard).exists():
                raise CheckpointError(f"{folder / shard}: missing, but {listing.name} lists it; download it again.")
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        check_safetensors(file)
    if weights or not (folder / "config.json").exists():
        return  # whole, or a part without weights (a tokenizer, a scheduler)
    pickled = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickled:
        raise CheckpointError(
            f"{folder}: has only pickled weights ({', '.join(pickled)}), which are never opened; load them where you "
            "trust them and save_pretrained(folder, safe_serialization=True)."
        )
    wanted = f" (variant {variant})" if variant else ""
    raise CheckpointError(f"{folder}: no *.safetensors weights{wanted}; copy or download them again.")


def check_safetensors(file: Path) -> None:
    """Raise CheckpointError where the header is damaged or the file is not as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: truncated or damaged ({size:,} bytes; {error}). Delete it and copy or download it again."
        ) from error


def _read_json(file: Path, advice: str) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise CheckpointError(f"{file}: missing; {advice}.") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); {advice}.") from error


def _fitting(pipeline: str | None) -> str:
    """Which adapter drives `pipeline`, read from the adapters themselves."""
    from mmalign.adapters import adapters

    fits = [name for name in adapters.names() if getattr(adapters.get(name), "pipeline_name", None) == pipeline]
    return f" Use adapter '{fits[0]}'." if fits and pipeline else ""
