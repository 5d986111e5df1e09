"""Are the folders there that the adapter takes weights from, and of the kind that it takes? Hub ids tell it later."""

from __future__ import annotations

from pathlib import Path

from mmalign.adapters.bases.pretrained_adapter import PretrainedAdapter
from mmalign.adapters.weights.start import starts_of
from mmalign.core.errors import CheckpointError
from mmalign.core.files import absent_asset, local_path
from mmalign.core.protocols import AdapterTraits
from mmalign.loading.pipelines import Origin, over_base
from mmalign.loading.trained import is_place, local_weights
from mmalign.run.checks import Faults, check

LORA = "adapter_config.json"  # of peft


@check
def there(adapter: object) -> Faults:
    """The folder of this machine that `model` names exists, and holds what is meant."""
    value = AdapterTraits.of(adapter).model
    if not isinstance(value, str) or not value:
        return
    try:
        fault = _alone(adapter, value) if local_weights(value) is not None else _missing(value)
    except CheckpointError as error:
        fault = str(error)
    if fault:
        yield f"adapter.model: {fault}"


@check
def begun(adapter: object) -> Faults:
    """Every LoRA to start from that is on this machine is whole, and one of the adapter's model, as headers tell."""
    if not isinstance(adapter, PretrainedAdapter):
        return
    faults = [fault for start in starts_of(adapter.start_lora) if (fault := _missing(start.path))]
    if not faults:
        try:
            adapter.read_start(fetch=False)
        except CheckpointError as error:
            faults = [str(error)]
    for fault in faults:
        yield f"adapter.start_lora: {fault}"


def _missing(name: str) -> str:
    here = local_path(name) is not None or local_weights(name) is not None
    missing = [f"{name}: no such folder.", absent_asset(name)] if is_place(name) and not here else []
    return " ".join(filter(None, missing))


def _alone(adapter: object, model: str) -> str:
    """The fault of a folder with a trained part and no base, or a LoRA where a model is meant; "" for any other."""
    if hasattr(adapter, "pipeline_name"):
        over_base(Origin(model=model))
    folder = local_weights(model)
    if folder is None or hasattr(adapter, "score") or not _is_lora(folder):  # a reward model may be one
        return ""
    return f"{folder} is a LoRA: write adapter.start_lora: {folder}, and its base as adapter.model."


def _is_lora(folder: Path) -> bool:
    return (folder / LORA).is_file() and not (folder / "config.json").is_file()
