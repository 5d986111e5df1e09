"""docs/lora.md: its run files build, its tables are the forms that there are, its program reloads what is exported."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest
import torch
import yaml

from mmalign.adapters import adapters, load_adapter
from mmalign.core.config import parse
from mmalign.loading.lora_styles import pipelines_of
from mmalign.run.build import build
from mmalign.run.export import FORMS, write_form, write_merged
from tests.adapters.tiny import write_tiny_sd3
from tests.docs.blocks import DOCS, named_blocks

BLOCKS = named_blocks("lora.md")
PAGE = (DOCS / "lora.md").read_text(encoding="utf-8")


def test_its_run_files_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    start, options = (build(parse(yaml.safe_load(BLOCKS[name]))) for name in ("start.yaml", "options.yaml"))
    assert start.filled().adapter["start_lora"] == "me/my-style"
    assert options.filled().adapter["lora"]["rank_pattern"] == {"to_q": 32}
    assert options.file.trainer.schedule == "wsd"


def test_every_form_has_its_row() -> None:
    assert re.findall(r"^\| `(\w+)` \| (?:all|those|SD|the same)", PAGE, re.M) == list(FORMS)


def test_what_other_programs_names_come_to_is_what_diffusers_and_the_forms_know() -> None:
    import diffusers

    rows = re.findall(r"^\| (`[^|]*`) \| (yes|no)[^|]*\| (yes|no)[^|]*\| (yes|no) \|$", PAGE, re.M)
    told = {name: tuple(cells) for names, *cells in rows for name in re.findall(r"`(\w+)`", names)}
    found = {}
    for name in adapters.names():
        pipeline = getattr(adapters.get(name), "pipeline_name", "")
        kind = getattr(diffusers, pipeline, None)
        if kind is not None:
            read = getattr(kind, "lora_state_dict", None)
            converts = read is not None and "_convert_" in inspect.getsource(inspect.unwrap(read))
            written = [pipeline in pipelines_of(style) for style in ("kohya", "comfyui")]
            found[name] = tuple("yes" if one else "no" for one in (converts, *written))
    assert told == found and len(found) >= 10


def test_its_program_reloads_what_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_sd3(tmp_path / "model")
    adapter = load_adapter("sd3", model=str(model), device="cpu", lora={"rank": 2})
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight += 0.1
    adapter.save(tmp_path / "lora")
    out = tmp_path / "runs" / "mine" / "export"
    write_merged(adapter, tmp_path / "lora", out / "merged", "fp32")
    write_form(adapter, tmp_path / "lora", "diffusers", out / "diffusers", "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reload.py").write_text(BLOCKS["reload.py"].replace("MODEL", str(model)))
    made = runpy.run_path("reload.py")
    call = {"num_inference_steps": 2, "latents": torch.randn(1, *adapter.latent_shape), "output_type": "latent"}
    one, other = (made[name]("a cat", **call).images for name in ("merged", "pipe"))
    assert (one - other).abs().max() <= 1e-4 * one.abs().max()
