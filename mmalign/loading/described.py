"""Configurations of a model's components, read before its weights are: what it makes is known by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.files import read_json
from mmalign.loading.pipelines import Origin, over_base
from mmalign.loading.trained import is_place, named

Get = Literal["here", "kept", "fetch"]


def component_config(model: str, component: str, revision: str | None = None, get: Get = "here") -> dict[str, Any]:
    """The `config.json` of a model's component ("": its own); {} where there is none to be had, which loading says.

    `get`: of a Hub id, nothing of it; what is "kept" on this machine; or the file, "fetch"ed if it is not.
    """
    try:
        origin = (
            over_base(Origin(model=model, revision=revision))
            if component
            else Origin(model=named(model), revision=revision)
        )
        folder = origin.folder_of(component) if component else local_path(origin.model)
        if folder is not None:
            path: Path | None = folder / "config.json"
        elif get == "here" or is_place(origin.model):
            return {}
        else:
            file = f"{component}/config.json" if component else "config.json"
            path = _hub_file(origin.model, file, origin.revision, get == "fetch")
        return read_json(path, "copy it again") if path is not None else {}
    except CheckpointError:
        return {}


def _hub_file(model: str, file: str, revision: str | None, fetch: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        if isinstance(cached := try_to_load_from_cache(model, file, revision=revision), str):
            return Path(cached)
        return Path(hf_hub_download(model, file, revision=revision)) if fetch else None
    except Exception:  # the Hub client raises many unrelated kinds; loading meets them again, and tells
        return None
