"""What a run trained, in the form that another program reads.

| form | what is written |
|---|---|
| merged | all of the model, the LoRA in its weights: a folder for plain diffusers or transformers |
| peft | `adapter_model.safetensors` and `adapter_config.json` |
| diffusers | `pytorch_lora_weights.safetensors`, the scale in its header |
| kohya, comfyui | one safetensors file with their names, see `mmalign.loading.lora_styles` |
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from mmalign.adapters.bases.diffusers_adapter import DiffusersAdapter
from mmalign.adapters.bases.pretrained_adapter import Dtype, PretrainedAdapter, torch_dtype
from mmalign.adapters.weights.lora import write_lora
from mmalign.adapters.weights.peft import write_peft
from mmalign.adapters.weights.start import merge_adapters
from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.files import write_folder_beside
from mmalign.loading.described import component_config
from mmalign.loading.lora_files import lora_file
from mmalign.loading.lora_forms import read_lora
from mmalign.loading.lora_state import LoRAState
from mmalign.loading.lora_styles import Style, styled
from mmalign.loading.trained import local_weights, named
from mmalign.run.members import build_whole
from mmalign.run.resuming import resume_point

Form = Literal["merged", "peft", "diffusers", "kohya", "comfyui"]
FORMS: tuple[str, ...] = get_args(Form)


def export_run(
    run: Path | str,
    form: Form,
    out: Path | None = None,
    *,
    dtype: Dtype | None = None,
    allow: Collection[str] = (),
    changes: Sequence[str] = (),
) -> Path:
    """Write what a run trained in another form; returns the folder or file.

    Args:
        run: what `mmalign train` wrote, of which the newest checkpoint is taken, or RUN@STEP.
        form: see above.
        out: where; by default `export/<form>` in the run's directory.
        dtype: of a merged model's weights; by default that of the run.
        allow: modules that its run file may name.
        changes: `key.path=value` changes of its run file, as where the base model lies now.

    Raises:
        ConfigError: no run there, or `out` is taken.
        CapabilityError: what was trained cannot be said in this form.
        CheckpointError: no whole checkpoint, or no base.
    """
    directory, _ = resume_point(run)
    if not ((directory / "run.yaml").is_file() and (directory / "checkpoints").is_dir()):
        raise ConfigError(
            f"{directory}: no run.yaml and checkpoints in it; name a directory that `mmalign train` wrote."
        )
    out = directory / "export" / form if out is None else out
    if out.exists():
        raise ConfigError(f"{out}: is there already; name another --out, or remove it.")
    file = load(directory / "run.yaml", changes)
    adapter = build_whole("adapters", file.adapter, "adapter", allow)
    weights = local_weights(str(run))
    if not isinstance(adapter, PretrainedAdapter) or weights is None:
        raise CapabilityError(
            f"adapter '{file.adapter['name']}' saves in a form of its own; there is nothing to export."
        )
    if form == "merged":
        with write_folder_beside(out) as beside:
            write_merged(adapter, weights, beside, dtype or adapter.dtype)
        return out
    if adapter.train != "lora":
        raise CapabilityError(
            f"--as {form}: is of a LoRA, and this run trained train: {adapter.train}; take --as merged."
        )
    with write_folder_beside(out) as beside:
        name = write_form(adapter, weights, form, beside, directory.name)
    return out / name


def write_merged(adapter: PretrainedAdapter, weights: Path, directory: Path, dtype: Dtype) -> None:
    """Write all of the adapter's model with the trained `weights` in it; added in float32, rounded once to `dtype`."""
    options: dict[str, Any] = {
        "train": "frozen",
        "dtype": "fp32",
        "device": "cpu",
        "freeze_start": False,
        "quantize": "none",
    }
    if adapter.train == "full":
        whole = replace(adapter, **options, model=str(weights), start_lora=None)
    else:
        whole = replace(adapter, **options, start_lora=str(weights))
    whole.load("cpu")
    if adapter.train != "full":
        merge_adapters(whole.trained_network())
    whole.trained_network().to(torch_dtype(dtype))
    whole.write_model(directory)


def write_form(adapter: PretrainedAdapter, weights: Path, form: Form, directory: Path, run: str) -> str:
    """Write the LoRA in `weights` to `directory`; returns the name of the file where it is a single one, else "".

    Raises:
        CapabilityError: the form has no names for this family.
    """
    directory.mkdir(parents=True, exist_ok=True)
    place = adapter.lora_place()
    file = lora_file(str(weights))
    assert file is not None  # a folder of this machine
    state = read_lora(file, place)
    if form == "peft":
        _to_peft(state, adapter, directory)
        return ""
    if not isinstance(adapter, DiffusersAdapter):
        raise CapabilityError(f"--as {form}: is of diffusers' pipelines, and '{adapter.name}' is none; take --as peft.")
    if form == "diffusers":
        if not hasattr(place.pipeline, "save_lora_weights"):
            raise CapabilityError(
                f"--as diffusers: {adapter.pipeline_name} of diffusers loads no LoRAs; take --as peft, which its "
                f"{adapter.component} loads, or merged."
            )
        write_lora(state, directory, adapter.component, place.pipeline)
        return ""
    return _to_style(state, adapter, cast(Style, form), directory, run)


def _to_peft(state: LoRAState, adapter: PretrainedAdapter, directory: Path) -> None:
    config = state.config
    config.base_model_name_or_path = config.base_model_name_or_path or named(adapter.model)
    config.inference_mode = True
    write_peft(state, directory)


def _to_style(state: LoRAState, adapter: DiffusersAdapter, style: Style, directory: Path, run: str) -> str:
    from safetensors.torch import save_file

    config = component_config(adapter.model, adapter.component, adapter.revision, "fetch")
    tensors = styled(state, adapter.pipeline_name, adapter.component, style, config)
    name = f"{run}_{style}.safetensors"
    save_file(tensors, directory / name, metadata={"format": "pt"})
    return name
