"""What a run saved, given where a model is asked for.

| given | what is meant |
|---|---|
| a run directory | the weights of its newest whole checkpoint |
| a checkpoint of it, RUN@STEP or RUN@best | its weights |
| weights of one component, with `base.json` | that component, and everything else of the base that the file names |

Any other folder is itself. A base that lies in or beside the run's directory is written down by the way to it, too, so
that both may be moved or copied together.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from mmalign.core.checkpoints import DONE, at_step, fault_of, latest, numbered, step_named
from mmalign.core.errors import CheckpointError, MmalignWarning
from mmalign.core.files import lasting, local_path
from mmalign.loading.files import read_json

BASE = "base.json"
_WHOLE = ("model_index.json", "config.json")  # at the top of what loads by itself
_LORA = ("pytorch_lora_weights.safetensors", "adapter_config.json")


@dataclass(frozen=True, kw_only=True)
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
    """`weights_in` of the existing folder that `model` names; None where it names none here (a Hub id, a file).

    Raises:
        CheckpointError: a run directory without a whole checkpoint, or not of the step that RUN@STEP names.
    """
    folder = local_path(model)
    if folder is None:
        return _at_step(model)
    return weights_in(folder) if folder.is_dir() else None


def _at_step(model: str) -> Path | None:
    """The weights of a run's checkpoint where `model` is RUN@STEP; None where it is not."""
    run, at, step = model.rpartition("@")
    folder = local_path(run) if at else None
    if folder is None or not folder.is_dir() or (number := step_named(folder, step)) is None:
        return None
    return weights_in(at_step(folder / "checkpoints", number))


def is_place(model: str) -> bool:
    """Is it written as a path of this disk, which no Hub id can be?"""
    return model.startswith(("/", "./", "../", "~", "assets/")) or model.count("/") > 1


def named(model: str) -> str:
    """`model`, or of a run or its checkpoint the folder of weights that this is today."""
    weights = local_weights(model)
    return model if weights is None or weights == local_path(model) else str(weights.absolute())


def way_to(base: str, folder: Path) -> str | None:
    """The relative path from `folder` (of weights) to the local folder `base`, in or beside the directory of its run.

    None for a Hub id, and for a folder that lies elsewhere.
    """
    place = local_path(base)
    if place is None or not place.is_dir() or base.startswith("assets/"):
        return None
    start, end = folder.resolve(), place.resolve()
    run = next((path.parent for path in start.parents if path.name == "checkpoints"), start)
    return os.path.relpath(end, start) if end.is_relative_to(run.parent) else None


def place_of_base(file: Path, key: str, base: str, way: str | None) -> str:
    """Where the model `base`, the `key` of `file`, lies now: there, or at the end of the `way` from the file's folder.

    Raises:
        CheckpointError: it is written as a path, and at neither place.
    """
    place = lasting(base, file.parent)
    if local_path(place) is not None or not is_place(place):
        return place
    near = (file.parent / way).resolve() if way else None
    if near is None or not near.is_dir():
        raise CheckpointError(
            f'{file}: the base model {base} is not there; write as its "{key}" where it lies now (here is only what '
            "was trained, the rest is the base's)."
        )
    warnings.warn(
        f"{file}: the base model is no longer {base}; {near} is taken, which lies as it did.",
        MmalignWarning,
        stacklevel=2,
    )
    return str(near)


def write_base(folder: Path, base: Base) -> None:
    """Write `folder/base.json`."""
    entries = {**asdict(base), "relative": way_to(base.model, folder)}
    (folder / BASE).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def read_base(folder: Path) -> Base | None:
    """What `folder/base.json` says; None where the folder has none.

    Raises:
        CheckpointError: the file is damaged, or names a folder that is not there, or no trained component lies beside
            it.
    """
    file = folder / BASE
    if not file.is_file():
        return None
    entries = read_json(file, "copy the folder again")
    files = {name: entries.get(name) for name in ("revision", "variant", "relative")}
    unusable = [name for name in ("model", "component") if not isinstance(entries.get(name), str) or not entries[name]]
    unusable += [name for name, value in files.items() if value is not None and not isinstance(value, str)]
    if unusable:
        raise CheckpointError(f"{file}: has no usable {' and '.join(unusable)}; copy the folder again.")
    component = entries["component"]
    if Path(component).name != component or not (folder / component).is_dir():
        raise CheckpointError(f"{file}: names the component {component!r}, which is no folder beside it.")
    place = place_of_base(file, "model", entries["model"], files.pop("relative"))
    return Base(model=place, component=component, **files)


def refuse_alone(folder: Path) -> None:
    """Raise CheckpointError where `folder` holds only what was trained of a pipeline, and not of which."""
    if any((folder / name).exists() for name in _WHOLE):
        return
    if any((folder / name).exists() for name in _LORA):
        raise CheckpointError(
            f"{folder}: holds a LoRA, not a pipeline; continue its run with --resume, or start from it: name it as "
            "start_lora, and its base as model."
        )
    parts = sorted(file.parent.name for file in folder.glob("*/config.json"))
    if len(parts) == 1:
        entries = json.dumps({"model": "folder or Hub id of the base", "component": parts[0]})
        raise CheckpointError(
            f"{folder}: holds the {parts[0]} of a pipeline and does not say of which; write {entries} to "
            f"{folder / BASE}."
        )
