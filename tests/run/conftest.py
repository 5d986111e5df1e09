"""A tiny Stable Diffusion 3 on disk and a run file that aligns it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.adapters.tiny import write_tiny_sd3

RUN = """
adapter: {{name: sd3, model: {model}, train: {train}, lora: {{rank: 4, alpha: 4}}, max_sequence_length: 8}}
policy: {{name: flow, num_inference_steps: 3, eval_steps: 2}}
rewards:
  crisp: {{name: sharpness}}
objective: {{name: grpo, group_size: 4, beta: 0.01}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 4, prompts_per_step: 2, lr: 1.0e-3, save_every: 2, preview_every: 2, evaluate_every: 2}}
evaluation:
  judges:
    small: {{name: compressibility, role: judge}}
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkpoint."""
    with torch.random.fork_rng():
        return write_tiny_sd3(tmp_path_factory.mktemp("tiny") / "sd3", t5=False)


@pytest.fixture
def run_file(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Writes a run file and its prompts; `train` is "lora" or "full"."""

    def write(train: str = "lora") -> Path:
        (tmp_path / "prompts.txt").write_text("".join(f"a picture of {i} things\n" for i in range(10)))
        path = tmp_path / "run.yaml"
        path.write_text(RUN.format(model=tiny_model, train=train))
        return path

    return write
