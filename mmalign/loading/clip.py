"""A model of open_clip with its tokenizer: from a folder, the Hub, or open_clip's own list of published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.errors import CheckpointError
from mmalign.core.files import local_path
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_folder, check_safetensors, read_json, refused_pickles
from mmalign.loading.folders import NETWORK, OPEN_CLIP, downloaded, model_folder
from mmalign.loading.networks import FAULTS

CONFIG = "open_clip_config.json"
# In the order of open_clip, which looks for pickles under such names too.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_ELSEWHERE = ("hf_model_name", "timm_model_name")  # text towers and picture towers of other libraries


def open_clip_folder(checkpoint: str) -> Path:
    """The folder of an open_clip checkpoint: a local one, or `hf-hub:org/name` from the Hub; looked at.

    Raises:
        CheckpointError: a file is missing, damaged or pickled, or asks for code.
    """
    wanted, advice = f"an open_clip folder (with {CONFIG})", "open_clip's push_to_hf_hub.save_for_hf makes one."
    name = checkpoint.removeprefix("hf-hub:")

    def download() -> Path:
        folder = downloaded(name, None, OPEN_CLIP)
        return folder if any(folder.glob("*.safetensors")) else downloaded(name, None, NETWORK)

    folder = model_folder(name, wanted, advice, download)
    read_json(folder / CONFIG, "an open_clip folder has it")
    check_folder(folder)
    weights = [folder / file for file in _WEIGHTS if (folder / file).exists()] or sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(refused_pickles(folder) or f"{folder}: no .safetensors weights in it; copy it again.")
    check_safetensors(weights[0])
    if weights[0].name not in _WEIGHTS and refused_pickles(folder):
        raise CheckpointError(f"{folder}: rename {weights[0].name} to {_WEIGHTS[0]}, or a pickle would come first.")
    return folder


def open_clip_model(folder: Path | None, model: str = "", pretrained: str = "") -> Any:
    """The model of a folder from `open_clip_folder`, or open_clip's `model` with its `pretrained` tag or file.

    Raises:
        CheckpointError: nothing could be built, or the weights are not those of its network.
    """
    if pretrained.endswith(".safetensors"):
        check_safetensors(Path(pretrained))
    with loading():
        import open_clip

        name = f"local-dir:{folder.resolve()}" if folder else model
        _check_towers(open_clip.get_model_config(name) or {}, folder or model)
        try:
            made = open_clip.create_model(name, pretrained=pretrained or None, require_pretrained=True)
        except FAULTS as error:
            of = folder or (f"{model} with {pretrained}" if pretrained.endswith(".safetensors") else model)
            raise CheckpointError(f"{of}: no CLIP could be built from it: {_first(error)}") from error
        return made.requires_grad_(False).eval()


def open_clip_tokenizer(folder: Path | None, model: str = "") -> Any:
    """The tokenizer of a folder, or of open_clip's `model`; the weights are not looked at.

    Raises:
        CheckpointError: none could be built, or it asks for code.
    """
    if folder is not None:
        read_json(folder / CONFIG, "an open_clip folder has it")
        check_folder(folder)
    with loading():
        import open_clip

        name = f"local-dir:{folder.resolve()}" if folder else model
        _check_towers(open_clip.get_model_config(name) or {}, folder or model)
        try:
            return open_clip.get_tokenizer(name)
        except FAULTS as error:
            raise CheckpointError(f"{folder or model}: no tokenizer could be built from it: {_first(error)}") from error


def _check_towers(config: dict[str, Any], named: Path | str) -> None:
    """A tower may name a model of its own, whose configuration is read: of a local folder it is looked at first."""
    for part in (config.get("text_cfg") or {}, config.get("vision_cfg") or {}):
        for key in _ELSEWHERE:
            if (place := local_path(str(part.get(key) or "-"))) is not None and place.is_dir():
                check_folder(place)
        if (part.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
            raise CheckpointError(f"{named}: tokenizer_kwargs asks to run code of a checkpoint, which is never run.")


def _first(error: Exception) -> str:
    """What `load_state_dict` says of missing and unexpected keys goes over many lines; the first few tell."""
    sentence = " ".join(str(error).split())
    return sentence if len(sentence) <= 400 else f"{sentence[:400]}…"
