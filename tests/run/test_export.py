"""What a run trained, exported: each form gives the same outputs in a fresh process of plain libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.run.export import write_form, write_merged
from tests.adapters.asked import asked_of
from tests.adapters.language.reward_models import moved, reward_model
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.test_moved import NAMES, loaded, move
from tests.loading.writers import WRITERS

#: Of float32: the same matrices, added beside the weights or in them, by kernels of other shapes.
TOLERANCE = 1e-4
WITH_A_LOADER = {"sd", "sdxl", "sd3", "flux", "qwen_image", "sana", "ace_step"}  # of diffusers, for LoRAs
STYLES = {
    "sd": {"kohya", "comfyui"},
    "sdxl": {"kohya", "comfyui"},
    "sd3": {"comfyui"},
    "flux": {"comfyui"},  # kohya's: of the width of FLUX.1 alone, see below
    "qwen_image": {"kohya", "comfyui"},
}
KINDS = {
    "musicgen": "MusicgenForConditionalGeneration",
    "causal_lm": "AutoModelForCausalLM",
    "image_text": "AutoModelForImageTextToText",
    "audio_text": "AutoModelForMultimodalLM",
    "reward_model": "AutoModelForSequenceClassification",
}


def forms_of(name: str) -> set[str]:
    return {"merged", "peft"} | ({"diffusers"} if name in WITH_A_LOADER else set()) | STYLES.get(name, set())


@torch.no_grad()
def asked_and_answered(adapter: Any) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """The inputs of one forward of the trained network, as the family calls it, and its output."""
    network, seen = adapter.trained_network(), []
    if not hasattr(adapter, "latent_shape"):
        ids = torch.tensor([[5, 6, 7, 8]])
        kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if adapter.name == "musicgen":
            kwargs["decoder_input_ids"] = torch.zeros(adapter.delays.codebooks, 3, dtype=torch.long)
        return (), kwargs, network(**kwargs).logits
    hook = network.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    x = torch.linspace(-1, 1, torch.Size(adapter.latent_shape).numel()).reshape(1, *adapter.latent_shape)
    adapter.predict(x, adapter.schedule(4).times[1:2], adapter.encode(asked_of(adapter)[:1]))
    hook.remove()
    args, kwargs = seen[0]
    out = network(*args, **kwargs)
    return args, kwargs, out[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Of every family and form what the run's own network answers, and what plain libraries do in a fresh process."""
    root = tmp_path_factory.mktemp("exported")
    jobs, wanted = [], []
    for name in (*NAMES, "reward_model"):
        folder = write_tiny_lm(root / name) if name == "reward_model" else WRITERS[name](root / name)
        adapter = (
            moved(reward_model(folder))
            if name == "reward_model"
            else loaded(name, folder, lora={"rank": 2, "alpha": 3})
        )
        move(adapter)
        adapter.save(root / f"{name}_lora")
        args, kwargs, answer = asked_and_answered(adapter)
        for form in sorted(forms_of(name)):
            place = root / f"{name}_{form}"
            if form == "merged":
                write_merged(adapter, root / f"{name}_lora", place, "fp32")
                file = ""
            else:
                file = write_form(adapter, root / f"{name}_lora", form, place, "mine")  # type: ignore[arg-type]
            jobs.append(
                {
                    "name": name,
                    "form": form,
                    "path": str(place / file),
                    "base": str(folder),
                    "component": getattr(adapter, "component", ""),
                    "kind": getattr(adapter, "pipeline_name", KINDS.get(name, "")),
                    "more": {"num_labels": 1} if name == "reward_model" else {},
                    "args": args,
                    "kwargs": kwargs,
                }
            )
            wanted.append(answer)
    torch.save(jobs, root / "jobs.pt")
    script = Path(__file__).with_name("reload_exported.py")
    command = [sys.executable, str(script), str(root / "jobs.pt"), str(root / "answers.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = torch.load(root / "answers.pt", weights_only=True)
    return {(j["name"], j["form"]): (a, w) for j, a, w in zip(jobs, answers, wanted, strict=True)}


@pytest.mark.parametrize("name", [*NAMES, "reward_model"])
def test_every_form_gives_the_same_outputs_in_a_fresh_process(name: str, exported: Any) -> None:
    forms = forms_of(name)
    assert forms == {form for of, form in exported if of == name}
    for form in forms:
        answer, wanted = exported[name, form]
        assert (answer - wanted).abs().max() <= TOLERANCE * wanted.abs().max(), form
