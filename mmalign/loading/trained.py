"""What a run saved, given where a model is asked for.

| given | what is meant |
|---|---|
| a run directory | the weights of its newest whole checkpoint |
| a checkpoint of it | its weights |
| weights of one component, with `base.json` | that component, and everything else of the base that the file names |

Any other folder is itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mmalign.core.checkpoints import DONE, fault_of, latest, numbered
from mmalign.core.errors import CheckpointError
from mmalign.core.files import lasting, local_path
from mmalign.loading.files import read_json

BASE = "base.json"
_WHOLE = ("model_index.json", "config.json")  # at the top of what loads by itself
_LORA = ("pytorch_lora_weights.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Base:
    """The model whose `component` a run trained whole: a Hub id or a folder, with `revision` and `variant` of files."""

    model: str
    component: str
    revision: str | None = None
    variant: str | None = None


def weights_in(folder: Path) -> Path:
    """The folder of weights that `folder` stands for, see above.

    Raises:
        CheckpointError: a run directory without a whole checkpoint, or a checkpoint that is not whole.
    """
    inside = folder / "checkpoints"
    if inside.is_dir() and ((folder / "run.yaml").is_file() or numbered(inside)):
        return latest(inside, way="name another run, or a folder of weights") / "adapter"
    if (folder / DONE).is_file() and (folder / "adapter").is_dir():
        if (fault := fault_of(folder, "adapter")) is not None:
            raise CheckpointError(f"{folder}: this checkpoint is not whole ({fault}); name another one.")
        return folder / "adapter"
    return folder


def local_weights(model: str) -> Path | None:
    """`weights_in` of the existing folder that `model` names; None where it names none here (a Hub id, a file)."""
    found = local_path(model)
    return weights_in(found) if found is not None and found.is_dir() else None


def is_place(model: str) -> bool:
    """Is it written as a path of this disk, which no Hub id can be?"""
    return model.startswith(("/", "./", "../", "~", "assets/")) or model.count("/") > 1


def named(model: str) -> str:
    """`model`, or of a run or its checkpoint the folder of weights that this is today."""
    found = local_weights(model)
    return model if found is None or found == local_path(model) else str(found.absolute())


def write_base(folder: Path, base: Base) -> None:
    """Write `folder/base.json`."""
    (folder / BASE).write_text(json.dumps(asdict(base), indent=1) + "\n", encoding="utf-8")


def read_base(folder: Path) -> Base | None:
    """What `folder/base.json` says; None where the folder has none.

    Raises:
        CheckpointError: the file is damaged, or names a folder that is not there, or no trained component lies beside
            it.
    """
    file = folder / BASE
    if not file.is_file():
        return None
    found = read_json(file, "copy the folder again")
    files = {name: found.get(name) for name in ("revision", "variant")}
    wrong = [name for name in ("model", "component") if not isinstance(found.get(name), str) or not found[name]]
    wrong += [name for name, value in files.items() if value is not None and not isinstance(value, str)]
    if wrong:
        raise CheckpointError(f"{file}: has no usable {' and '.join(wrong)}; copy the folder again.")
    base = Base(found["model"], found["component"], **files)
    if Path(base.component).name != base.component or not (folder / base.component).is_dir():
        raise CheckpointError(f"{file}: names the component {base.component!r}, which is no folder beside it.")
    place = lasting(base.model, folder)
    if local_path(place) is None and is_place(place):
        raise CheckpointError(
            f'{file}: the base model {base.model} is not there; write as its "model" where it lies now (the '
            f"{base.component} alone was trained, the rest is the base's)."
        )
    return Base(place, base.component, base.revision, base.variant)


def refuse_alone(folder: Path) -> None:
    """Raise CheckpointError where `folder` holds only what was trained of a pipeline, and not of which."""
    if any((folder / name).exists() for name in _WHOLE):
        return
    if any((folder / name).exists() for name in _LORA):
        raise CheckpointError(
            f"{folder}: holds a LoRA, not a pipeline; continue its run with --resume, or make a pipeline of it: "
            "pipe.load_lora_weights(…), pipe.fuse_lora(), pipe.unload_lora_weights(), pipe.save_pretrained(folder) of "
            "diffusers."
        )
    parts = sorted(file.parent.name for file in folder.glob("*/config.json"))
    if len(parts) == 1:
        told = json.dumps({"model": "folder or Hub id of the base", "component": parts[0]})
        raise CheckpointError(
            f"{folder}: holds the {parts[0]} of a pipeline and does not say of which; write {told} to {folder / BASE}."
        )
