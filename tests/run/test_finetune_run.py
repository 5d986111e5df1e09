"""Fine-tuning on a folder of one's own: pictures by a flow, sounds by codebooks; prior outputs, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.media.audio import read_audio, write_audio
from mmalign.media.image import read_image, write_image
from mmalign.run.load import load_run
from mmalign.run.train import train
from tests.adapters.sound.tiny_musicgen import RATE, write_musicgen

PICTURES = """
adapter: {{name: sd3, model: {model}, lora: {{rank: 4, alpha: 4}}, max_sequence_length: 8, text_encoder_3: false}}
policy: {{name: flow, noise_level: 0, num_inference_steps: 3, eval_steps: 2}}
objective: {{name: sft, unit: mse, caption_dropout: 0.3, prior_prompts: [a thing, things], prior_count: 5}}
data: {{name: captioned, path: mine, held_out: 0.3}}
rewards: {{}}
trainer: {{steps: 4, prompts_per_step: 2, lr: 1.0e-2, save_every: 2}}
evaluation:
  judges:
    crisp: {{name: sharpness}}
"""
SOUNDS = """
adapter: {{name: musicgen, model: {model}, device: cpu, lora: {{rank: 2, alpha: 4}}, guided_density: false}}
policy: {{name: tokens, max_new_tokens: 6}}
objective: {{name: sft, unit: mean, caption_dropout: 0.3, prior_prompts: [a tone], prior_count: 3}}
data: {{name: captioned, path: mine}}
rewards: {{}}
trainer: {{steps: 2, prompts_per_step: 2, lr: 1.0e-2}}
"""


@pytest.fixture
def photos(tmp_path: Path, tiny_model: Path) -> Path:
    """A run file beside a folder of pictures of several sizes, each with its caption."""
    rng = torch.Generator().manual_seed(0)
    for i in range(8):
        write_image(torch.rand(3, 16 + i, 24, generator=rng), tmp_path / "mine" / f"{i}.png")
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a picture of {i} things")
    (tmp_path / "run.yaml").write_text(PICTURES.format(model=tiny_model))
    return tmp_path / "run.yaml"


def weights(run: Path, step: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    (file,) = (run / "checkpoints" / f"step_{step:06d}" / "adapter").glob("*.safetensors")
    return load_file(file)


def numbers(run: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def test_a_folder_of_pictures_trains_beside_what_the_start_makes_and_goes_on_exactly(photos: Path) -> None:
    whole = photos.parent / "whole"
    train(load(photos), out=whole)
    assert len(numbers(whole, "fit/prior")) == len(numbers(whole, "fit/target")) == 4
    held_out = numbers(whole, "eval/loss")
    assert len(held_out) == 2 and held_out[1] != held_out[0] > 0  # before, and after the last step
    listed = [json.loads(line) for line in (whole / "prior" / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in listed] == ["a thing", "things", "a thing", "things", "a thing"]
    made = torch.stack([read_image(whole / "prior" / row["file_name"]) for row in listed])
    assert made.std() > 0.01 and not torch.equal(made[0], made[2])  # of one prompt, from noise of their own

    train(load(photos, ["trainer.save_every=1"]), out=photos.parent / "often")
    # the start is lost: the reference makes the same outputs again, although weights have moved
    (whole / "summary.json").unlink()
    before = (whole / "prior" / "000001.png").read_bytes()
    for file in (whole / "prior").iterdir():
        file.unlink()
    (whole / "prior").rmdir()
    again = train(load(photos), resume=f"{whole}@2")
    assert (again.directory.path / "prior" / "000001.png").read_bytes() == before
    assert numbers(photos.parent / "often", "eval/loss") == held_out == numbers(whole, "eval/loss")
    often = weights(photos.parent / "often", 4)
    for name, value in weights(whole, 4).items():
        assert torch.equal(value, often[name]), name


def test_pictures_of_several_shapes_go_with_prior_outputs_and_with_shares_and_go_on_exactly(photos: Path) -> None:
    rng = torch.Generator().manual_seed(1)
    for i in range(5):
        write_image(torch.rand(3, *((12, 24), (24, 12))[i % 2], generator=rng), photos.parent / "more" / f"{i}.png")
        (photos.parent / "more" / f"{i}.txt").write_text(f"a shape of {i} things")
    run = yaml.safe_load(photos.read_text())
    parts = {
        name: {"name": "captioned", "path": name, "share": share} for name, share in (("mine", 0.4), ("more", 0.6))
    }
    run["data"] = {"name": "mixture", "parts": parts, "buckets": True}
    run["trainer"]["steps"] = 6
    photos.write_text(yaml.safe_dump(run))
    whole, parted = photos.parent / "whole", photos.parent / "parted"
    train(load(photos), out=whole)
    assert len(numbers(whole, "fit/prior")) == 6
    train(load(photos, ["trainer.steps=2"]), out=parted)
    state = json.loads((parted / "checkpoints" / "step_000002" / "state" / "state.json").read_text())
    assert state["batches"]["waiting"]
    train(load(photos), resume=parted)
    assert numbers(parted, "fit/target") == numbers(whole, "fit/target")
    for name, value in weights(whole, 6).items():
        assert torch.equal(value, weights(parted, 6)[name]), name


def test_prior_outputs_for_other_prompts_are_refused(photos: Path) -> None:
    train(load(photos, ["trainer.steps=2"]), out=photos.parent / "run")
    with pytest.raises(ConfigError, match=r"prior: holds 5 outputs for other prompts than objective\.prior_prompts"):
        train(load(photos, ["objective.prior_count=4"]), resume=photos.parent / "run")


def test_a_folder_of_sounds_trains_a_generator_of_codebooks(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        model = write_musicgen(tmp_path / "model")
    rng = torch.Generator().manual_seed(0)
    for i in range(4):
        write_audio(0.3 * torch.randn(1, RATE // 2 + 40 * i, generator=rng), RATE, tmp_path / "mine" / f"{i}.wav")
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a tone of {i} notes")
    (tmp_path / "run.yaml").write_text(SOUNDS.format(model=model))
    finished = train(load(tmp_path / "run.yaml"), out=tmp_path / "run")
    assert all(-20 < value < 0 for value in numbers(finished.directory.path, "fit/per_token"))
    assert len(numbers(finished.directory.path, "fit/prior")) == 2
    sounds = [read_audio(tmp_path / "run" / "prior" / f"{i:06d}.wav")[0] for i in range(3)]
    assert not torch.equal(sounds[0], sounds[1])  # drawn, not the likeliest three times
    assert all(bool((value != 0).any()) for name, value in weights(finished.directory.path, 2).items() if "_B" in name)
    assert load_run(finished.directory.path) is not None
