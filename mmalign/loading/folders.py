"""The local folder of a model: as named, or a Hub id's files, downloaded (or found in the Hub's cache)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.files import check_component, check_folder, read_json
from mmalign.loading.trained import is_place, local_weights, weights_in

_BESIDE = ("*.json", "*.jinja", "*.txt", "*.model")  # configurations, templates, vocabularies: no pickles, no code
NETWORK = ("model*.safetensors", "diffusion_pytorch_model*.safetensors", *_BESIDE)
PEFT = ("adapter_model.safetensors", *_BESIDE)
READER = _BESIDE  # a tokenizer or processor by itself
OPEN_CLIP = ("open_clip*.safetensors", *_BESIDE)


def model_folder(model: str, wanted: str, advice: str, download: Callable[[], Path]) -> Path:
    """The existing folder `model` (of a run, its weights), or what `download()` gives for a Hub id.

    CheckpointError says what was `wanted`.
    """
    if (folder := local_path(model)) is not None:
        if folder.is_dir():
            return weights_in(folder)
        raise CheckpointError(f"{folder}: is a file; {wanted} or a Hub id is needed. {advice}")
    if (weights := local_weights(model)) is not None:  # RUN@STEP
        return weights
    if is_place(model):
        kind = wanted.partition(" (")[0].partition(" ")[2]  # without its article
        raise CheckpointError(f"{model}: no such folder; give an existing {kind} or a Hub id (owner/name).")
    try:
        return download()
    except Exception as error:  # the Hub client raises many unrelated kinds, all meaning "not to be had"
        raise CheckpointError(
            f"{model}: not a local folder, and the Hub did not give it: {' '.join(str(error).split()).rstrip('.')}. "
            "Check the name and the network, log in where the model is gated, or download it once where there is a "
            f"network (hf download {model} --local-dir FOLDER) and name that folder."
        ) from error


def network_folder(model: str, revision: str | None = None, inside: str = "") -> Path:
    """The folder of one network as transformers or diffusers save it, whole; `inside`: the folder within a Hub's.

    Raises:
        CheckpointError: there is none, a file is missing or damaged, or it needs code of its own.
    """
    patterns = [f"{inside}/{pattern}" for pattern in NETWORK] if inside else NETWORK
    folder = model_folder(
        model,
        "a model folder (with config.json)",
        "save_pretrained(folder) of transformers makes one.",
        lambda: downloaded(model, revision, patterns) / inside,
    )
    if not (folder / "config.json").exists():
        hint = "a model folder has it"
        if (folder / "adapter_config.json").exists():
            base = read_json(folder / "adapter_config.json", "copy it again").get("base_model_name_or_path")
            hint = f"it is a LoRA: set start_lora to {folder}, and model to its base{f', {base}' if base else ''}"
        raise CheckpointError(f"{folder / 'config.json'}: missing; {hint}.")
    check_component(folder)
    return folder


def reader_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a tokenizer or processor, which may have no weights; CheckpointError where it needs own code."""
    advice = "save_pretrained(folder) of transformers makes one."
    wanted = "a folder (with a tokenizer or processor)"
    folder = model_folder(model, wanted, advice, lambda: downloaded(model, revision, READER))
    check_folder(folder)
    return folder


def peft_folder(adapter: str, revision: str | None = None) -> Path:
    """The local folder of a peft adapter."""
    advice = "save_pretrained(folder) of peft makes one."
    wanted = "an adapter folder (with adapter_config.json)"
    folder = model_folder(adapter, wanted, advice, lambda: downloaded(adapter, revision, PEFT))
    check_folder(folder)
    return folder


def downloaded(name: str, revision: str | None, patterns: Sequence[str], *, local: bool = False) -> Path:
    """The Hub's files of these patterns, in its cache; with `local`, what is there already."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), local_files_only=local))
