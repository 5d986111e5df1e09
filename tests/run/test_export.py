"""What a run trained, exported: each form gives the same outputs in a fresh process of plain libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmalign.cli.export import export as export_command
from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError
from mmalign.run.export import FORMS, export_run, write_form, write_merged
from mmalign.run.load import load_run
from mmalign.run.train import train
from tests.adapters.asked import asked_of
from tests.adapters.language.reward_models import moved, reward_model
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.moving import NAMES, loaded, move
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
    network = adapter.trained_network()
    seen: list[Any] = []
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
    jobs: list[Any] = []
    wanted: list[Tensor] = []
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


SFT = """
adapter: {{name: causal_lm, model: {model}, train: {train}, lora: {{rank: 2, alpha: 3}}}}
policy: {{name: tokens, max_new_tokens: 6}}
objective: {{name: sft}}
data: {{name: prompts, path: rows.jsonl}}
trainer: {{steps: 2, save_every: 1, prompts_per_step: 2, lr: 1.0e-2}}
"""


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_run_is_exported_by_its_directory_and_step(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = write_tiny_lm(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "say a", "target": "a"}\n{"prompt": "say b", "target": "b"}\n')
    (tmp_path / "run.yaml").write_text(SFT.format(model=model, train=mode))
    run = train(load(tmp_path / "run.yaml"), out=tmp_path / "run").directory.path
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        adapter: Any = load_run(run).parts.adapter
        wanted = adapter.trained_network()(ids).logits
        export_command(str(run))
        assert capsys.readouterr().out.splitlines()[-1] == str(run / "export" / "merged")
        merged = AutoModelForCausalLM.from_pretrained(run / "export" / "merged")(ids).logits
        assert (merged - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
        with pytest.raises(ConfigError, match=r"export/merged: is there already; name another --out, or remove it"):
            export_run(run, "merged")
        if mode == "full":
            with pytest.raises(
                CapabilityError, match=r"--as peft: is of a LoRA, and this run trained train: full; take"
            ):
                export_run(run, "peft")
            return
        first = export_run(f"{run}@1", "peft", tmp_path / "first")
        earlier = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), first)(ids).logits
        assert (earlier - wanted).abs().max() > 1e-4
        started = loaded("causal_lm", model, start_lora=f"{run}@1", lora={}).trained_network()(ids).logits
        assert (earlier - started).abs().max() <= TOLERANCE * started.abs().max()
    with pytest.raises(CapabilityError, match=r"--as kohya: is of diffusers' pipelines, and 'causal_lm' is none; take"):
        export_run(run, "kohya")
    assert not (run / "export" / "kohya").exists()
    with pytest.raises(CheckpointError, match=r"step_000007: no such checkpoint; there is 1, 2"):
        export_run(f"{run}@7", "peft")
    with pytest.raises(ConfigError, match=r"no run\.yaml and checkpoints in it; name a directory that"):
        export_run(tmp_path, "peft")
    with pytest.raises(ConfigError, match=rf"--as onnx: write {', '.join(FORMS)}\."):
        export_command(str(run), form="onnx")


def test_a_merged_model_has_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    adapter = loaded("causal_lm", write_tiny_lm(tmp_path / "model"))
    move(adapter)
    adapter.save(tmp_path / "lora")
    write_merged(adapter, tmp_path / "lora", tmp_path / "half", "bf16")
    assert {value.dtype for value in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    write_merged(adapter, tmp_path / "lora", tmp_path / "whole", "fp32")
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(half[key], value.bfloat16()) for key, value in whole.items())  # rounded once, after the sum
