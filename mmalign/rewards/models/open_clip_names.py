"""What open_clip calls its architectures and weights, read without importing it: that takes seconds of torchvision.

Its list of weights is a module that imports nothing of the models; it is imported under a name of its own, so that
open_clip itself is not begun, and without what it would only download with.
"""

from __future__ import annotations

import builtins
import importlib.util
import json
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mmalign.core.errors import ConfigError, did_you_mean

_ALIAS = "_open_clip_names"
_DOWNLOADERS = ("safetensors", "huggingface_hub")  # open_clip does without them; they take a second, and torch


def require_known(model: str, tag: str) -> None:
    """The architecture and the tag exist, and the activation is that of the weights, of which open_clip only warns.

    Of weights from a file (`tag` is empty) only the architecture is judged.

    Raises:
        ConfigError: an unknown `model` or `tag`, with what is near; QuickGELU on one side only.
    """
    files = architectures()
    if model not in files:
        raise ConfigError(
            f"model: open_clip has no '{model}'.{did_you_mean(model, files)} `open_clip.list_models()` names all "
            f"{len(files)}."
        )
    if not tag:
        return
    known = weights(model)
    if tag not in known:
        near = did_you_mean(tag, known)
        raise ConfigError(f"pretrained: open_clip's '{model}' has no tag '{tag}'.{near} Known: {', '.join(known)}.")
    config = json.loads(files[model].read_text(encoding="utf-8"))
    wanted = bool(known[tag].get("quick_gelu", False))
    if wanted != bool(config.get("quick_gelu", False)):
        other = f"{model}-quickgelu" if wanted else model.removesuffix("-quickgelu")
        raise ConfigError(
            f"model: the weights '{tag}' were trained {'with' if wanted else 'without'} QuickGELU and '{model}' is "
            f"{'without' if wanted else 'with'} it, which shifts every score; use model '{other}'."
        )


@lru_cache(maxsize=1)
def architectures() -> dict[str, Path]:
    """The config file of every architecture by its name."""
    return {file.stem: file for file in sorted((_folder() / "model_configs").glob("*.json"))}


def weights(model: str) -> dict[str, dict[str, Any]]:
    """What open_clip knows of each weights' tag of `model`."""
    return getattr(_list_of_weights(), "_PRETRAINED").get(model, {})  # noqa: B009 (a private name of another package)


def _folder() -> Path:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ConfigError("model: open_clip is not installed: pip install open-clip-torch")
    return Path(spec.origin).parent


@lru_cache(maxsize=1)
def _list_of_weights() -> ModuleType:
    package = sys.modules[_ALIAS] = ModuleType(_ALIAS)
    package.__path__ = [str(_folder())]
    spec = find_spec(f"{_ALIAS}.pretrained")
    if spec is None or spec.loader is None:
        raise ConfigError(f"model: open_clip in {_folder()} has no list of weights; install it again.")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
    spec.loader.exec_module(module)
    return module


def _import(name: str, *rest: Any) -> Any:
    if name.partition(".")[0] in _DOWNLOADERS:
        raise ImportError(name)
    return builtins.__import__(name, *rest)
