"""Tokenizers, processors and configurations from a folder; code of a checkpoint is never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.core.errors import CheckpointError
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_folder, read_json
from mmalign.loading.networks import FAULTS

_SAFE = {"local_files_only": True, "trust_remote_code": False}


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of `folder`, with its chat template as it is, without torch where its files name a class."""
    return _opened("AutoTokenizer", folder, "tokenizer", networks=False, **_family(folder))


def open_processor(folder: Path, part: str = "image_processor", reads: str = "images") -> Any:
    """The processor of `folder`: tokenizer, chat template and `part` in one; CheckpointError without that part."""
    processor = _opened("AutoProcessor", folder, "processor")
    if getattr(processor, part, None) is None:
        raise CheckpointError(
            f"{folder}: its processor ({type(processor).__name__}) reads no {reads}; use adapter causal_lm, or copy "
            f"the files of its {part.replace('_', ' ')} too."
        )
    return processor


def open_config(folder: Path) -> Any:
    """The configuration of the network in `folder`."""
    return _opened("AutoConfig", folder, "model")


def config_from(entries: Mapping[str, Any]) -> Any:
    """The configuration that a `config.json` of these entries is; KeyError for a kind transformers does not have."""
    with loading():
        from transformers import CONFIG_MAPPING

        return CONFIG_MAPPING[entries["model_type"]].from_dict(dict(entries))


def open_peft_config(folder: Path) -> Any:
    """The configuration of the peft adapter in `folder`."""
    check_folder(folder)
    with loading():
        from peft import PeftConfig

        try:
            return PeftConfig.from_pretrained(str(folder))
        except FAULTS as error:
            raise CheckpointError(f"{folder / 'adapter_config.json'}: cannot be read: {error}") from error


def preprocessor_config(folder: Path, part: str) -> dict[str, Any]:
    """The `part` ("image_processor", "feature_extractor") of a checkpoint's preprocessing, or a CheckpointError."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            config = read_json(folder / name, "copy it again")
            return config.get(part, config)
    raise CheckpointError(
        f"{folder}: no preprocessor_config.json; name the folder or Hub id that has it as `processor`."
    )


def _family(folder: Path) -> dict[str, Any]:
    """What AutoTokenizer asks of a model's configuration, where the tokenizer's own file names its class: the family.

    It would make the whole configuration otherwise, whose module imports torchvision and torch (4 s of a processor).
    """
    own, model = folder / "tokenizer_config.json", folder / "config.json"
    if not (own.exists() and model.exists() and read_json(own, "copy it again").get("tokenizer_class")):
        return {}
    entries = read_json(model, "copy it again")
    with loading(networks=False):
        from transformers import PreTrainedConfig

        config = PreTrainedConfig(name_or_path=str(folder))
    for name in ("model_type", "model_name", "tokenizer_class"):
        if isinstance(value := entries.get(name), str):
            setattr(config, name, value)
    return {"config": config}


def _opened(kind: str, folder: Path, what: str, networks: bool = True, **options: Any) -> Any:
    check_folder(folder)
    with loading(networks):
        import transformers

        try:
            return getattr(transformers, kind).from_pretrained(folder, **options, **_SAFE)
        except FAULTS as error:
            raise CheckpointError(f"{folder}: no {what} could be built from it: {error}") from error
