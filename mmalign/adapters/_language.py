"""Language models and tokenizers from a Hub id, a local folder, or an embedded asset: one path, safetensors only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.adapters._loading import check_component, model_folder
from mmalign.core.errors import CheckpointError

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # of a Hub repository: no pickles, no code


def language_folder(model: str, revision: str | None = None) -> Path:
    """The local folder of `model`; CheckpointError unless it holds a whole checkpoint of transformers."""
    advice = "save_pretrained(folder) of transformers makes one."
    folder = model_folder(model, "a model folder (with config.json)", advice, lambda: _downloaded(model, revision))
    if not (folder / "config.json").exists():
        lora = (folder / "adapter_config.json").exists()
        hint = "it is a LoRA: set start_lora to it, and model to its base" if lora else "a model folder has it"
        raise CheckpointError(f"{folder / 'config.json'}: missing; {hint}.")
    check_component(folder)
    return folder


def adapter_folder(adapter: str, revision: str | None = None) -> Path:
    """The local folder of a peft adapter."""
    advice = "save_pretrained(folder) of peft makes one."
    wanted = "an adapter folder (with adapter_config.json)"
    return model_folder(adapter, wanted, advice, lambda: _downloaded(adapter, revision))


def open_language_model(
    folder: Path, dtype: torch.dtype, attention: str | None = None, kind: str = "AutoModelForCausalLM"
) -> Any:
    """The model of `folder` that transformers' Auto class `kind` makes, frozen and in evaluation mode, on the CPU."""
    import transformers

    more = {"attn_implementation": attention} if attention else {}
    try:
        model = getattr(transformers, kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **more
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError, ImportError) as error:
        what = "causal language model" if kind == "AutoModelForCausalLM" else f"model of {kind}"
        raise CheckpointError(f"{folder}: no {what} could be built from it: {error}") from error
    return model.requires_grad_(False).eval()


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of `folder`, with its chat template as it is."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(f"{folder}: no tokenizer could be built from it: {error}") from error


def open_processor(folder: Path, part: str = "image_processor", reads: str = "images") -> Any:
    """The processor of `folder`: tokenizer, chat template and `part` in one; CheckpointError without that part."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"{folder}: no processor could be built from it: {error}") from error
    if getattr(processor, part, None) is None:
        raise CheckpointError(
            f"{folder}: its processor ({type(processor).__name__}) reads no {reads}; use adapter causal_lm, or copy "
            f"the files of its {part.replace('_', ' ')} too."
        )
    return processor


def _downloaded(name: str, revision: str | None, patterns: Sequence[str] = PATTERNS, *, local: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    more: dict[str, Any] = {"local_files_only": True} if local else {}
    return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), **more))
