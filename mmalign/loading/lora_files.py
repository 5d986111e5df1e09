"""Where the weights of a LoRA lie: of a run, a checkpoint of it, a folder, a single file, or a Hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.files import check_folder, check_safetensors, refused_pickles
from mmalign.loading.folders import downloaded, model_folder
from mmalign.loading.trained import BASE, is_place, local_weights

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ENDING = ".safetensors"
_HUB = ("*.safetensors", PEFT_CONFIG)


@dataclass(frozen=True)
class LoRAFile:
    """The `weights` of a LoRA, and peft's `config` beside them where there is one."""

    weights: Path
    config: Path | None = None


def lora_file(reference: str, revision: str | None = None, fetch: bool = True) -> LoRAFile | None:
    """Return the files of the LoRA that `reference` names, headers looked at; None for a Hub id that may not be asked.

    Args:
        reference: a run directory (its newest checkpoint), RUN@STEP, a folder, a .safetensors file, or a Hub id.
        revision: of the Hub's files.
        fetch: download a Hub id.

    Raises:
        CheckpointError: nothing is there, or something else than one LoRA.
    """
    place = local_path(reference)
    if place is not None and not place.is_dir():
        return _single(place)
    folder = local_weights(reference)
    if folder is None and not is_place(reference) and not fetch:
        return None
    if folder is None:
        wanted = "an adapter folder (with adapter_config.json or pytorch_lora_weights.safetensors)"
        advice = "save_pretrained(folder) of peft and save_lora_weights(folder) of diffusers make one."
        folder = model_folder(reference, wanted, advice, lambda: downloaded(reference, revision, _HUB))
    return _inside(folder)


def _single(file: Path) -> LoRAFile:
    if file.suffix != _ENDING:
        raise CheckpointError(
            f"{file}: is no .safetensors file, and pickled weights are never opened; `mmalign convert {file} "
            f"{file.with_suffix(_ENDING)}` rewrites one."
        )
    check_safetensors(file)
    config = file.with_name(PEFT_CONFIG)
    return LoRAFile(file, config if file.name == PEFT_FILE and config.is_file() else None)


def _inside(folder: Path) -> LoRAFile:
    check_folder(folder)
    config, peft = folder / PEFT_CONFIG, folder / PEFT_FILE
    if config.is_file() or peft.is_file():
        for file in (config, peft):
            if not file.exists():
                raise CheckpointError(f"{file}: no such file; a folder saved by peft or by a LoRA run is needed.")
        check_safetensors(peft)
        return LoRAFile(peft, config)
    if (folder / BASE).is_file() or any((folder / name).is_file() for name in ("config.json", "model_index.json")):
        raise CheckpointError(f"{folder} is a whole model, no LoRA: write adapter.model: {folder}, without start_lora.")
    files = sorted(folder.glob(f"*{_ENDING}"))
    named = [file for file in files if file.name == DIFFUSERS_FILE] or files
    if len(named) > 1:
        listed = ", ".join(file.name for file in named[:8])
        raise CheckpointError(f"{folder}: holds {len(named)} safetensors files ({listed}); name one of them.")
    if not named:
        raise CheckpointError(
            refused_pickles(folder) or f"{folder}: holds no LoRA ({DIFFUSERS_FILE}, or {PEFT_FILE} with {PEFT_CONFIG})."
        )
    return _single(named[0])


def first_of(names: Sequence[str], most: int = 20) -> str:
    """List up to `most` names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{rest}"
