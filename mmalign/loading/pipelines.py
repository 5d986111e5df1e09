"""A diffusers pipeline from a Hub id, a local folder, or an embedded asset: one path, every component complete."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_component, check_folder, read_json
from mmalign.loading.folders import model_folder
from mmalign.loading.foreign import Pipeline
from mmalign.loading.networks import FAULTS, open_network
from mmalign.loading.trained import BASE, local_weights, read_base, refuse_alone

_LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a pipeline comes from.

    `model` is a Hub id or a folder, `revision` and `variant` choose among the Hub's files. `parts` are folders of
    components that are taken in place of the checkpoint's own, by name.
    """

    model: str
    revision: str | None = None
    variant: str | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)

    def folder_of(self, component: str) -> Path | None:
        """Where a component lies, if it lies on this machine under the name of a folder."""
        folder = local_path(self.model)
        return self.parts.get(component, folder / component if folder is not None else None)


def open_pipeline(
    pipeline: str,
    origin: Origin,
    dtypes: Mapping[str, torch.dtype],
    *,
    absent: Collection[str] = (),
    optional: Collection[str] = (),
    fitting: Callable[[str], str] = lambda pipeline_class: "",
) -> Any:
    """Build the diffusers pipeline class named `pipeline`, frozen and in evaluation mode, on the CPU.

    Args:
        pipeline: the class's name.
        origin: of its files.
        dtypes: by component name, and "default".
        absent: components that are not loaded and become None.
        optional: components that become None where the checkpoint does not list them.
        fitting: what to say to who gave a pipeline of another class.

    Raises:
        CheckpointError: naming the file or component at fault.
    """
    with loading():
        import diffusers

        kind = getattr(diffusers, pipeline)
    origin, folder, listed = _looked_at(kind, origin, absent, fitting)
    without = dict.fromkeys({*absent, *(name for name in optional if name not in listed)})
    if "requires_safety_checker" in inspect.signature(kind.__init__).parameters:
        without["requires_safety_checker"] = False
    with loading():
        kinds = {name: _class_of(folder, *entry) for name, entry in listed.items() if name not in absent}
        networks = {
            name: open_network(
                origin.parts.get(name, folder / name),
                made,
                dtypes.get(name, dtypes["default"]),
                variant=origin.variant,
            )
            for name, made in kinds.items()
            if issubclass(made, torch.nn.Module)
        }
        try:
            pipe = kind.from_pretrained(folder, local_files_only=True, **networks, **without)
        except FAULTS as error:
            raise CheckpointError(f"{folder}: {pipeline} could not be built from it: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def over_base(origin: Origin) -> Origin:
    """`origin`, or the base with the trained component in place of its own, where it is what a run left of one.

    Raises:
        CheckpointError: it is neither a pipeline nor such a component, or the base is not where it was.
    """
    folder = local_weights(origin.model)
    if folder is None:
        return origin
    if (base := read_base(folder)) is None:
        refuse_alone(folder)
        return replace(origin, model=str(folder))
    parts = {base.component: folder / base.component, **origin.parts}
    return Origin(model=base.model, revision=base.revision, variant=base.variant, parts=parts)


def _looked_at(
    kind: type[Pipeline], origin: Origin, absent: Collection[str], fitting: Callable[[str], str]
) -> tuple[Origin, Path, dict[str, tuple[str, str]]]:
    """The origin over its base, the pipeline's folder, and the (library, class) of its components; all files looked at.

    What is taken from elsewhere is neither downloaded nor looked at in the pipeline's own folder.
    """
    taken_from = over_base(origin)
    elsewhere = {*absent, *taken_from.parts}
    for part in taken_from.parts.values():
        check_component(part)
    try:
        folder = checkpoint_folder(kind, taken_from.model, taken_from.revision, taken_from.variant, elsewhere)
        return taken_from, folder, check_checkpoint(folder, kind.__name__, taken_from.variant, elsewhere, fitting)
    except CheckpointError as error:
        if not (trained := [part for name, part in taken_from.parts.items() if name not in origin.parts]):
            raise
        raise CheckpointError(f"{trained[0].parent / BASE}: its base model: {error}") from error


def modules(pipe: Pipeline) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by component name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def checkpoint_folder(
    kind: type[Pipeline],
    model: str,
    revision: str | None = None,
    variant: str | None = None,
    absent: Collection[str] = (),
) -> Path:
    """The local folder of `model`; a Hub id is downloaded (or found in the Hub cache) first, without `absent` parts."""
    wanted = "a pipeline folder (with model_index.json)"
    advice = f"diffusers' {kind.__name__}.from_single_file(...).save_pretrained(folder) makes one."
    skipped = dict.fromkeys(absent)  # components passed by hand are not downloaded

    def download() -> Path:
        return Path(kind.download(model, revision=revision, variant=variant, use_safetensors=True, **skipped))

    return model_folder(model, wanted, advice, download)


def check_checkpoint(
    folder: Path,
    pipeline: str,
    variant: str | None = None,
    absent: Collection[str] = (),
    fitting: Callable[[str], str] = lambda own_class: "",
) -> dict[str, tuple[str, str]]:
    """The (library, class) of each component that `folder` lists.

    CheckpointError unless they are whole and make up a `pipeline`. Of weights only the headers are read; `absent`
    components are not looked at.
    """
    check_folder(folder)
    index = read_json(folder / "model_index.json", "a pipeline folder has it at its top: give that folder")
    if (own_class := index.get("_class_name")) != pipeline:
        raise CheckpointError(
            f"{folder}: holds a {own_class}, this adapter drives {pipeline}.{fitting(str(own_class))}"
        )
    listed = {
        name: (str(entry[0]), str(entry[1]))
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    }
    for name in listed:
        if name not in absent:
            check_component(folder / name, variant)
    return listed


def _class_of(folder: Path, library: str, name: str) -> Any:
    """The class of a component, of transformers or diffusers and of nothing else."""
    from diffusers import pipelines
    from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj

    try:
        # A pipeline's own components stand beside it: diffusers writes its module for the library.
        if library not in _LIBRARIES and not inspect.ismodule(getattr(pipelines, library, None)):
            raise AttributeError
        return simple_get_class_obj(library, name)
    except (AttributeError, ImportError):
        raise CheckpointError(
            f"{folder / 'model_index.json'}: lists {library}.{name}, which {' and '.join(_LIBRARIES)} do not have "
            "(another release may); code that comes with a checkpoint is never run."
        ) from None
