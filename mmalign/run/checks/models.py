"""Are the folders there that the adapter takes weights from, and of the kind that it takes? Hub ids tell it later."""

from __future__ import annotations

from pathlib import Path

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.pipelines import Origin, over_base
from mmalign.loading.trained import is_place, local_weights
from mmalign.run.checks import Faults, check

LORA = "adapter_config.json"  # of peft


@check
def there(adapter: object) -> Faults:
    """The folders of this machine that `model` and `start_lora` name exist, and hold what is meant."""
    for option in ("model", "start_lora"):
        value = getattr(adapter, option, None)
        if not isinstance(value, str) or not value:
            continue
        if local_path(value) is None:
            if is_place(value):
                yield f"adapter.{option}: {value}: no such folder."
            continue
        try:
            fault = _alone(adapter, value) if option == "model" else _no_lora(value)
        except CheckpointError as error:
            fault = str(error)
        if fault:
            yield f"adapter.{option}: {fault}"


def _alone(adapter: object, model: str) -> str:
    """The fault of a folder with a trained part and no base, or a LoRA where a model is meant; "" for any other."""
    if hasattr(adapter, "pipeline_name"):
        over_base(Origin(model=model))
    folder = local_weights(model)
    if folder is None or not hasattr(adapter, "start_lora") or not _is_lora(folder):
        return ""
    return f"{folder} is a LoRA: write adapter.start_lora: {folder}, and its base as adapter.model."


def _no_lora(lora: str) -> str:
    folder = local_weights(lora)
    if folder is None or _is_lora(folder) or not (folder / "config.json").is_file():
        return ""
    return f"{folder} is a whole model, no LoRA: write adapter.model: {folder}, without start_lora."


def _is_lora(folder: Path) -> bool:
    return (folder / LORA).is_file() and not (folder / "config.json").is_file()
