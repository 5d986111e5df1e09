"""Tokenizers, processors and configurations from a folder; code of a checkpoint is never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.errors import CheckpointError
from mmalign.loading.exclusive import loading
from mmalign.loading.files import check_folder, read_json
from mmalign.loading.networks import FAULTS

_SAFE = {"local_files_only": True, "trust_remote_code": False}


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of `folder`, with its chat template as it is."""
    return _opened("AutoTokenizer", folder, "tokenizer")


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


def _opened(kind: str, folder: Path, what: str) -> Any:
    check_folder(folder)
    with loading():
        import transformers

        try:
            return getattr(transformers, kind).from_pretrained(folder, **_SAFE)
        except FAULTS as error:
            raise CheckpointError(f"{folder}: no {what} could be built from it: {error}") from error
