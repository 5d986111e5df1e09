"""Tiny checkpoints of the real pipeline classes, written once per session; no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters import tiny

WRITERS: dict[str, Callable[[Path], Path]] = {
    "sd": tiny.write_tiny_sd,
    "sd_v": lambda folder: tiny.write_tiny_sd(folder, prediction="v_prediction", timestep_spacing="trailing", seed=1),
    "sdxl": tiny.write_tiny_sdxl,
    "sd3": tiny.write_tiny_sd3,
    "sd3_dynamic": lambda folder: tiny.write_tiny_sd3(folder, t5=False, seed=2, shift=1.0, use_dynamic_shifting=True),
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint by name (a key of WRITERS), written when first asked for."""
    root, written = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(name: str) -> Path:
        if name not in written:
            with torch.random.fork_rng():
                written[name] = WRITERS[name](root / name)
        return written[name]

    return folder


@pytest.fixture
def make(checkpoint: Callable[[str], Path]) -> Callable[..., Any]:
    """`make("sd3", train="full")` builds and loads the adapter of a tiny checkpoint on the CPU."""
    from mmalign.adapters import adapters

    def adapter(name: str, **options: Any) -> Any:
        options = {"model": str(checkpoint(name)), "device": "cpu", "lora": {"rank": 2, "alpha": 4}} | options
        return adapters.build({"name": name.partition("_")[0], **options}, "adapter").load()

    return adapter


@pytest.fixture
def pipeline(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """A fresh plain diffusers pipeline of a tiny checkpoint, with DDIM where the family is a diffusion."""

    def fresh(name: str) -> Any:
        from diffusers import DDIMScheduler, DiffusionPipeline

        without_t5 = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3_dynamic" else {}
        pipe = DiffusionPipeline.from_pretrained(checkpoint(name), **without_t5)
        pipe.set_progress_bar_config(disable=True)
        if hasattr(pipe, "unet"):
            own = pipe.scheduler.config
            ends = own.get("set_alpha_to_one", True)
            pipe.scheduler = DDIMScheduler.from_config(own, clip_sample=False, set_alpha_to_one=ends)
        return pipe

    return fresh


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
