"""Is what a Hub id names on this machine, where the Hub may not be asked? Only its cache is looked at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmalign.adapters.weights.start import starts_of
from mmalign.core.files import local_path
from mmalign.rewards.models.open_clip_names import weights
from mmalign.run.checks import Faults, check

OPTIONS = ("model", "checkpoint", "processor", "start_lora")  # those that may name something of the Hub
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@check
def cached(adapter: object, rewards: Mapping[str, Any], judges: Mapping[str, Any]) -> Faults:
    """Of the adapter, of every reward and judge, and of what these are made of: encoders, judges, other rewards."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not HF_HUB_OFFLINE:
        return
    for place, component in {"adapter": adapter, **rewards, **judges}.items():
        for option, name, revision in dict.fromkeys(hub_ids(component, set())):
            if not in_cache(name, revision):
                yield (
                    f"{place}: {option} {name} is not on this machine, and HF_HUB_OFFLINE forbids to download it; "
                    f"fetch it once (`hf download {name}`), or name a folder."
                )


def hub_ids(component: object, seen: set[int]) -> Iterator[tuple[str, str, str | None]]:
    """(option, Hub id, revision) of a component and of what it is made of; open_clip's tags are ids, too."""
    if id(component) in seen or not dataclasses.is_dataclass(component):
        return
    seen.add(id(component))
    revision = getattr(component, "revision", None)
    for option in OPTIONS:
        value = getattr(component, option, None)
        several = [start.path for start in starts_of(value)] if option == "start_lora" else [value]
        for name in several:
            if isinstance(name, str) and _hub_id(name) and local_path(name) is None:
                yield option, name, revision if isinstance(revision, str) else None
    if tag := getattr(component, "pretrained", ""):
        published = weights(str(getattr(component, "model", ""))).get(str(tag), {}).get("hf_hub", "")
        yield from [("pretrained", name, None) for name in re.findall(r"^[^/]+/[^/]+", published)]
    for part in vars(component).values():
        yield from hub_ids(part, seen)


def _hub_id(name: str) -> bool:
    """Is a name written like ORG/NAME, and none of an embedded model?"""
    return bool(_ID.fullmatch(name)) and not name.startswith("assets/")


def in_cache(name: str, revision: str | None) -> bool:
    """Has the Hub's cache any files of `name`, at its `revision` where one is asked for?"""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    if revision is None:
        return any((folder / "snapshots").glob("*/*"))
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    return any((folder / "snapshots" / commit).glob("*"))
