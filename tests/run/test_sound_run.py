"""Sound through the same loop as everything else: DRAGON, GRPO and R0 towards a folder of exemplars."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmalign.core.config import load
from mmalign.run.train import train
from tests.adapters.tiny_stable_audio import write_stable_audio
from tests.rewards.sounds import write_tones

RUN = """
adapter: {{name: stable_audio, model: {model}, seconds: 0.1, lora: {{rank: 2, alpha: 4}}, device: cpu}}
policy: {policy}
rewards:
  style: {{name: fad, reference: {exemplars}, encoder: {{name: spectral, rate: 4000, bands: 8}}}}
objective: {objective}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 2, batch: 3, lr: 1.0e-2, save_every: 2, preview_every: 2}}
evaluation:
  judges:
    clipping: {{name: clipping}}
"""
RECIPES = {
    "dragon": ("{name: ddpm, eta: 0, num_inference_steps: 3}", "{name: dragon, builder: greedy_swap}"),
    "grpo": ("{name: ddpm, eta: 1, num_inference_steps: 3, guidance_scale: 2}", "{name: grpo, group_size: 4}"),
    "r0": ("{name: few_step, num_inference_steps: 2}", "{name: r0}"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        return write_stable_audio(tmp_path_factory.mktemp("sound") / "tiny")


@pytest.mark.parametrize("name", RECIPES)
def test_a_set_reward_of_sound_trains(name: str, model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    policy, objective = RECIPES[name]
    exemplars = write_tones(tmp_path / "exemplars")
    (tmp_path / "prompts.txt").write_text("".join(f"a tune of {i} notes\n" for i in range(10)))
    (tmp_path / "run.yaml").write_text(RUN.format(model=model, exemplars=exemplars, policy=policy, objective=objective))
    finished = train(load(tmp_path / "run.yaml"), out=tmp_path / "run")
    assert [(row.name, row.role) for row in finished.rows][:1] == [("style", "trained")]
    step = tmp_path / "run" / "checkpoints" / "step_000002" / "adapter"
    learned = load_file(step / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for key, value in learned.items() if "lora_B" in key)
    samples = tmp_path / "run" / "samples" / "step_000002"
    assert (samples / "000.wav").exists() and (samples / "000.png").exists()
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<audio" in html and 'class="sound"' in html
