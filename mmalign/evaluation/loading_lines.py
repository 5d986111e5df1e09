"""Python lines that load what a run saved, without mmalign where plain libraries can; told from the files it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.core.files import local_path

__all__ = ["Lines", "Place", "Trained", "absent", "is_hub_id", "loading_lines", "name_of", "plain_name"]

REWARD_MODEL = "reward_model"  # the adapter
#: The class of transformers that reads the base model, by adapter.
CLASSES = {
    "causal_lm": "AutoModelForCausalLM",
    "image_text": "AutoModelForImageTextToText",
    "audio_text": "AutoModelForMultimodalLM",
    "musicgen": "MusicgenForConditionalGeneration",
}
OMNI = "Qwen2_5OmniThinkerForConditionalGeneration"  # of Qwen2.5-Omni the part that answers in text
#: What saved texts or pictures are read with, by a file that is saved beside the weights.
READERS = {"processor_config.json": "AutoProcessor", "tokenizer_config.json": "AutoTokenizer"}

_OF_RUN = re.compile(r"(?P<run>[^/]+)/checkpoints/step_(?P<step>\d+)(/adapter)?/?$")

Place = tuple[str, str]  # a path or Hub id as it stands in the lines, and what is said of it behind them
Lines = tuple[str, str]  # library, and the lines


@dataclass(frozen=True)
class Trained:
    """A `component` of the base that an earlier run trained, of the class `kind`, and where it lies."""

    component: str
    kind: str
    place: Place


def loading_lines(
    folder: Path,
    weights: str,
    adapter: Mapping[str, Any],
    base: Place,
    run: Place,
    without: Sequence[str] = (),
    earlier: Trained | None = None,
) -> Lines:
    """Library and lines that load `folder`; ("", "") where no library does.

    Args:
        folder: the saved weights.
        weights: their place within the run directory.
        adapter: that section of the run file.
        base: the model that was trained.
        run: the run directory.
        without: components that the base's pipeline does not have, see `absent`.
        earlier: what a LoRA was added to, where that is not the base itself.
    """
    arguments = "".join(f", {component}=None" for component in without)
    pipeline = f"pipe = DiffusionPipeline.from_pretrained(base{arguments})"
    over = f"pipe.{earlier.component} = {earlier.kind}.from_pretrained(start)" if earlier else ""
    start = earlier.place if earlier else None
    imported = ", ".join(["DiffusionPipeline", *([earlier.kind] if earlier else [])])
    name, place = str(adapter.get("name", "")), f'f"{{run}}/{weights}"'
    if name == REWARD_MODEL and not _plain_head(folder):
        call = f'reward = mmalign.load_reward("reward_model", model={place})'
        return "mmalign", _lines(["import mmalign"], [call], run, None)
    if (folder / "pytorch_lora_weights.safetensors").exists():
        calls = [*filter(None, [pipeline, over]), f"pipe.load_lora_weights({place})"]
        return "diffusers", _lines([f"from diffusers import {imported}"], calls, run, base, start)
    if (folder / "adapter_config.json").exists():
        return "peft", _of_peft(name, place, base, run, pipeline, earlier)
    if (folder / "model_index.json").exists():
        calls = [f"pipe = DiffusionPipeline.from_pretrained({place})"]
        return "diffusers", _lines(["from diffusers import DiffusionPipeline"], calls, run, None)
    for config in [folder / "config.json", *sorted(folder.glob("*/config.json"))]:
        settings = read_object(config)
        if kind := settings.get("_class_name"):
            part = config.parent.name if config.parent != folder else "transformer"
            where = f'f"{{run}}/{weights}/{part}"' if config.parent != folder else place
            calls = [pipeline, f"pipe.{part} = {kind}.from_pretrained({where})"]
            return "diffusers", _lines([f"from diffusers import DiffusionPipeline, {kind}"], calls, run, base)
        if (names := settings.get("architectures")) and config.parent != folder:
            whole, part = CLASSES[name], config.parent.name
            calls = [f"model = {whole}.from_pretrained(base)"]
            calls.append(f'model.{part} = {names[0]}.from_pretrained(f"{{run}}/{weights}/{part}")')
            return "transformers", _lines([f"from transformers import {names[0]}, {whole}"], calls, run, base)
        if names:
            return "transformers", _of_transformers(folder, str(names[0]), place, run)
    return "", ""


def _lines(
    imports: Sequence[str], calls: Sequence[str], run: Place, base: Place | None, start: Place | None = None
) -> str:
    named = [("run", run), *([("base", base)] if base else []), *([("start", start)] if start else [])]
    assignments = [
        f"{word} = {json.dumps(path, ensure_ascii=False)}{f'  # {comment}' if comment else ''}"
        for word, (path, comment) in named
    ]
    return "\n".join([*imports, "", *assignments, *calls])


def _of_transformers(folder: Path, kind: str, place: str, run: Place) -> str:
    reader = next((reader for file, reader in READERS.items() if (folder / file).exists()), "")
    calls = [f"model = {kind}.from_pretrained({place})"]
    if reader:
        calls.append(f"{reader.removeprefix('Auto').lower()} = {reader}.from_pretrained({place})")
    return _lines([f"from transformers import {', '.join(sorted(filter(None, [reader, kind])))}"], calls, run, None)


def _of_peft(name: str, place: str, base: Place, run: Place, pipeline: str, earlier: Trained | None) -> str:
    """Lines for a LoRA as peft saves it: on a model of transformers, or on the network of a pipeline."""
    if name == REWARD_MODEL:
        kind, options = "AutoModelForSequenceClassification", ", num_labels=1"
    else:
        kind, options = CLASSES.get(name, ""), ""
        kind = OMNI if kind == CLASSES["audio_text"] and "omni" in base[0].lower() else kind
    if kind:
        imports = ["from peft import PeftModel", f"from transformers import {kind}"]
        if earlier:
            imports[1] = f"from transformers import {', '.join(sorted([earlier.kind, kind]))}"
            calls = [f"model = {kind}.from_pretrained(base)"]
            calls.append(f"model.{earlier.component} = {earlier.kind}.from_pretrained(start)")
            calls.append(f"model = PeftModel.from_pretrained(model, {place})")
            return _lines(imports, calls, run, base, earlier.place)
        call = f"model = PeftModel.from_pretrained({kind}.from_pretrained(base{options}), {place})"
        return _lines(imports, [call], run, base)
    over = [f"pipe.{earlier.component} = {earlier.kind}.from_pretrained(start)"] if earlier else []
    imported = ", ".join(["DiffusionPipeline", *([earlier.kind] if earlier else [])])
    calls = [
        pipeline,
        *over,
        'part = "unet" if hasattr(pipe, "unet") else "transformer"',
        f"setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), {place}).merge_and_unload())",
    ]
    imports = [f"from diffusers import {imported}", "from peft import PeftModel"]
    return _lines(imports, calls, run, base, earlier.place if earlier else None)


def absent(base: Path | None, adapter: Mapping[str, Any]) -> list[str]:
    """Return what must be given as None where the base is loaded: parts it was saved without, or that were left out."""
    index = read_object(base / "model_index.json") if base is not None else {}
    empty = [name for name, value in index.items() if value == [None, None]]
    left_out = ["text_encoder_3", "tokenizer_3"] if adapter.get("text_encoder_3") is False else []
    return sorted({*empty, *left_out})


def _plain_head(folder: Path) -> bool:
    """Is it a reward model that plain libraries read with its head, and have a class for?"""
    head = read_object(folder / "reward_model.json").get("head")
    if head and head.get("kind") != "linear":
        return False
    if (folder / "adapter_config.json").exists():
        return read_object(folder / "adapter_config.json").get("task_type") == "SEQ_CLS"
    import transformers

    named = read_object(folder / "config.json").get("architectures") or []
    return bool(named) and all(hasattr(transformers, name) for name in named)


def is_hub_id(model: str) -> bool:
    """Does the name look like owner/name, and lie neither on this disk nor among the embedded assets?"""
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("assets/")
    return bool(hub) and local_path(model) is None


def plain_name(model: str) -> str:
    """A model's name without its place on this disk: a Hub id or an embedded one whole, of a folder its last part.

    What a run left is called by the run and the step: mine@200.
    """
    if left := _OF_RUN.search(model):
        return f"{left['run']}@{int(left['step'])}"
    return model if is_hub_id(model) or model.startswith("assets/") else name_of(model)


def name_of(path: str) -> str:
    """Return the last part of a path of this disk; anything else as it is."""
    return Path(path).name if path.startswith(("/", "~", "../")) or Path(path).is_absolute() else path


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object; {} where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
