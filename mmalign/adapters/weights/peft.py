"""A LoRA in the form that plain peft saves and loads; the reference is where it started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmalign.adapters.weights.lora import LoRA, begin, set_lora, whole_lora
from mmalign.adapters.weights.reference import StartedWeights, trained_parameters
from mmalign.core.errors import CheckpointError
from mmalign.loading.files import check_safetensors, read_json
from mmalign.loading.foreign import PretrainedModel
from mmalign.loading.lora_files import PEFT_CONFIG as CONFIG_FILE
from mmalign.loading.lora_files import PEFT_FILE as WEIGHTS_FILE
from mmalign.loading.lora_forms import PEFT_PREFIX as PREFIX
from mmalign.loading.lora_state import LoRAState, joined
from mmalign.loading.trained import place_of_base

BASE_KEY = "base_model_name_or_path"


class PeftWeights(StartedWeights):
    """The trainable adapter of `network` (any transformers model; a diffusers network for a fresh LoRA).

    Its reference is the adapter that it started from; for a fresh LoRA, the base model.

    Args:
        network: its base weights are frozen.
        lora: of a fresh adapter; not looked at where a `start` goes on training.
        targets: name endings of the modules a fresh LoRA goes to.
        start: an adapter to start from; the reference is then this adapter, not the base model.
        freeze_start: it stays as it is, a fresh LoRA trains beside it; what is saved is both as one.
        base: the model's name, written to the saved config so that peft finds it.
        task: peft's task type ("CAUSAL_LM"), if it has one.
        whole: modules that train whole beside a fresh LoRA and are saved with it (peft's `modules_to_save`).

    Raises:
        CheckpointError: `start` is of another model.
    """

    def __init__(
        self,
        network: PretrainedModel,
        lora: LoRA,
        targets: Sequence[str],
        *,
        start: LoRAState | None = None,
        freeze_start: bool = False,
        base: str,
        task: str | None = None,
        whole: Sequence[str] = (),
    ) -> None:
        network.requires_grad_(False)
        more = {"modules_to_save": list(whole)} if whole else {}
        self._frozen = joined([start], [1.0]) if start is not None and freeze_start else None
        begin(network, lora, lora.placed(targets), start, self._frozen, task_type=task, **more)
        config = network.peft_config["default"]
        config.base_model_name_or_path, config.task_type, config.inference_mode = base, task, False
        for parameter in trained_parameters(network).values():
            parameter.data = parameter.data.float()
        super().__init__(network)

    def save(self, directory: Path) -> None:
        """Write `adapter_config.json` and `adapter_model.safetensors`, which `PeftModel.from_pretrained` reads."""
        write_peft(whole_lora(self._network, self._frozen), directory)

    def restore(self, directory: Path) -> None:
        """Load what `save` wrote (or any peft adapter of the same shape); raises CheckpointError on any mismatch."""
        from safetensors.torch import load_file

        file = _weights(directory)
        state = {name.removeprefix(PREFIX): value for name, value in load_file(file).items()}
        saved = read_json(directory / CONFIG_FILE, "copy the folder again")
        set_lora(self._network, file, state, saved, self._frozen)


def write_peft(state: LoRAState, directory: Path) -> None:
    """Write an adapter in peft's form: its matrices, and its configuration beside them."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {PREFIX + name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    state.config.save_pretrained(directory)


def linear_endings(network: torch.nn.Module) -> tuple[str, ...]:
    """Return the last names of all linear layers of `network` (with GPT-2's transposed ones)."""
    kinds = ("Linear", "Conv1D")
    return tuple(sorted({n.rpartition(".")[2] for n, m in network.named_modules() if type(m).__name__ in kinds}))


def language_layers(model: PretrainedModel) -> tuple[str, ...]:
    """Name all linear layers of the language model inside `model`: the vision tower stays as it is."""
    language = model.get_decoder()
    prefix = next((name for name, part in model.named_modules() if part is language), "")
    endings = linear_endings(language)
    names = [name for name, _ in language.named_modules() if name.rpartition(".")[2] in endings]
    return tuple(f"{prefix}.{name}" if prefix else name for name in names)


def base_of(folder: Path, way: str | None = None) -> str:
    """Return the model that the adapter in `folder` says it belongs to, or what lies at the end of the `way`.

    Raises:
        CheckpointError: it does not say, or names a folder that is at neither place.
    """
    return place_of_base(folder / CONFIG_FILE, BASE_KEY, named_base(folder), way)


def named_base(folder: Path) -> str:
    """Return the model that the adapter in `folder` says it belongs to; CheckpointError if it does not say."""
    base = read_json(folder / CONFIG_FILE, "copy the folder again").get(BASE_KEY)
    if not base:
        raise CheckpointError(f"{folder / CONFIG_FILE}: names no {BASE_KEY}; write the base model there.")
    return str(base)


def _weights(folder: Path) -> Path:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: no such file; a folder saved by peft or by a LoRA run is needed.")
    check_safetensors(folder / WEIGHTS_FILE)
    return folder / WEIGHTS_FILE
