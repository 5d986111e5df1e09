"""The files and folders that a run file names, so that it means the same from whatever folder it is read.

A data source says in `references` which of its options name files; they may lie beside the run file. Of other
components (models, references of rewards) a value that is written like a path, and leads somewhere, is one; of a run
directory it means the newest whole checkpoint, whose folder is written down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmalign.core.config import RunFile, Spec
from mmalign.core.errors import CheckpointError
from mmalign.core.files import lasting
from mmalign.core.protocols import DataSource
from mmalign.loading.trained import named


def anchored(run: RunFile, source: DataSource) -> RunFile:
    """`run` with an absolute path for everything that only the current folder leads to."""
    prompts = run.evaluation.prompts
    return replace(
        run,
        adapter=_anchored(run.adapter),
        rewards=_anchored(run.rewards),
        objective=_anchored(run.objective),
        data=_lasting_data(run.data, source, run.folder),
        evaluation=replace(
            run.evaluation,
            prompts=lasting(prompts, run.folder) if prompts else "",
            judges=_anchored(run.evaluation.judges),
        ),
    )


def needs_base(run: RunFile, source: DataSource) -> bool:
    """Does something that the run file names lie beside it?"""
    named = [*_named_files(run.data, source), run.evaluation.prompts]
    return run.folder is not None and any(name and (run.folder / name).exists() for name in named)


def newest_taken(run: RunFile) -> list[str]:
    """Return a sentence for each run directory of which the adapter takes the newest checkpoint."""
    sentences = []
    for key, value in _texts(run.adapter):
        if (taken := _weights(value)) != value:
            sentences.append(f"adapter.{key}: {value} is what a run left; its weights are taken from {taken}.")
    return sentences


def _own(spec: Spec, source: DataSource) -> Collection[str]:
    """The options of a source that name something."""
    return [key for key in getattr(source, "references", ()) if spec.get(key)]


def _parts(source: DataSource) -> Mapping[str, DataSource]:
    """The sources that a source is made of, by their names in its option `parts`."""
    return getattr(source, "sources", {})


def _named_files(spec: Spec, source: DataSource) -> list[str]:
    """What a source and its parts name."""
    inside = [name for part, own in _parts(source).items() for name in _named_files(spec["parts"][part], own)]
    return [spec[key] for key in _own(spec, source)] + inside


def _lasting_data(spec: Spec, source: DataSource, folder: Path | None) -> Spec:
    """The options of a source, with an absolute path for everything that only the current folder leads to."""
    own = _own(spec, source)
    lasts = {key: lasting(value, folder) if key in own else value for key, value in spec.items()}
    parts = {name: _lasting_data(spec["parts"][name], part, folder) for name, part in _parts(source).items()}
    return {**lasts, "parts": {**spec["parts"], **parts}} if parts else lasts


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested options, with the key of the outermost one; names are none."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if name != "name":
                yield from _texts(each, key or str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)


def _anchored(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: each if key == "name" else _anchored(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_anchored(each) for each in value]
    if not isinstance(value, str) or not ("/" in value or Path(value).suffix):
        return value
    try:
        return lasting(_weights(value))
    except OSError:  # too long for a path
        return value


def _weights(value: str) -> str:
    """The weights that are taken of a run today: what it learns afterwards is not what this run was made with."""
    try:
        return named(value)
    except CheckpointError:  # told by what loads it
        return value
