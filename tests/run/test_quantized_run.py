"""Runs whose base has fewer bits: they start at ratio 1, resume exactly, and two processes share them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mmalign.core.config import load
from mmalign.run.export import export_run
from mmalign.run.train import train
from tests.run.launching import TORCHRUN

ROOT = Path(__file__).resolve().parents[2]
RUN = """
adapter: {{name: causal_lm, model: {model}, quantize: {quantize}, lora: {{rank: 4, alpha: 8}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{short: {{name: length, low: 1, high: 9, unit: characters}}}}
objective: {{name: grpo, group_size: 4, beta: 0.1}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 3, prompts_per_step: 2, lr: 1.0e-2, save_every: 1, keep: 3}}
evaluation: {{rows: 1}}
"""
KINDS = ["nf4", "int8", "fp8"]


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[[str], Path]:
    def file(quantize: str) -> Path:
        (tmp_path / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
        path = tmp_path / f"{quantize}.yaml"
        path.write_text(RUN.format(model=lm_folder("llama"), quantize=quantize))
        return path

    return file


def steps(run: Path) -> list[dict[str, float]]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "lr" in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_000003" / "state" / "weights.safetensors")


@pytest.mark.parametrize("quantize", KINDS)
def test_it_starts_at_ratio_1_and_resumes_exactly(quantize: str, write: Callable[[str], Path], tmp_path: Path) -> None:
    file = write(quantize)
    whole, half = tmp_path / "whole", tmp_path / "half"
    train(load(file), out=whole)
    first = steps(whole)[0]
    assert abs(first["ratio/mean"] - 1) <= 1e-5 and abs(first["kl/reference"]) <= 1e-6
    assert first["grad/norm"] > 0
    shutil.copytree(whole, half)
    train(load(half / "run.yaml"), resume=f"{half}@1")
    export_run(whole, "merged", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")  # the base as it was published, and the LoRA
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    one, two = weights(whole), weights(half)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("quantize", KINDS)
def test_two_processes_share_it(quantize: str, write: Callable[[str], Path], tmp_path: Path) -> None:
    file = write(quantize)
    train(load(file), out=tmp_path / "one")
    done = subprocess.run(
        [*TORCHRUN, "-m", "mmalign", "train", str(file), "--out", str(tmp_path / "two")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    two = steps(tmp_path / "two")
    assert len(two) == 3 and abs(two[0]["ratio/mean"] - 1) <= 1e-5
    first, other = ((tmp_path / name / "evaluation/before/rows.jsonl").read_text() for name in ("one", "two"))
    assert first == other  # each process read and quantised the base by itself
