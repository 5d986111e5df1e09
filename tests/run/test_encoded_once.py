"""A run that finds its encodings on the disk makes the numbers of one that encodes, and encodes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.bases.image_adapter import LatentImages
from mmalign.adapters.bases.sound_adapter import LatentSounds
from mmalign.adapters.image.sd3 import SD3
from mmalign.core.config import load
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.run.train import train
from tests.adapters.sound.tiny_musicgen import RATE, write_musicgen
from tests.adapters.sound.tiny_stable_audio import write_stable_audio

PICTURES = """
adapter: {{name: sd3, model: {model}, lora: {{rank: 4, alpha: 4}}, max_sequence_length: 8, text_encoder_3: false}}
policy: {{name: flow, noise_level: 0, num_inference_steps: 3, eval_steps: 2}}
objective: {{name: sft, caption_dropout: 0.2}}
data: {{name: captioned, path: mine}}
rewards: {{}}
trainer: {{steps: 3, prompts_per_step: 4, lr: 1.0e-2}}
"""
SOUNDS = """
adapter: {{name: {name}, model: {model}, lora: {{rank: 2, alpha: 4}}, device: cpu{more}}}
policy: {policy}
objective: {{name: sft}}
data: {{name: captioned, path: mine, cut: {cut}}}
rewards: {{}}
trainer: {{steps: 3, prompts_per_step: 4, lr: 1.0e-2}}
"""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What was encoded, in a cache of its own."""
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    calls: list[str] = []

    def noting(kind: Any, method: str, what: str) -> None:
        real = getattr(kind, method)

        def noted(self: Any, given: Any) -> Any:
            calls.append(what)
            return real(self, given)

        monkeypatch.setattr(kind, method, noted)

    noting(LatentImages, "_latent", "picture")
    noting(LatentSounds, "_latent", "sound")
    noting(SD3, "encode_text", "text")
    yield calls


def learned(run: Path) -> tuple[Any, list[float]]:
    from safetensors.torch import load_file

    (file,) = (run / "checkpoints" / "step_000003" / "adapter").glob("*.safetensors")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return load_file(file), [line["fit/target"] for line in lines if "fit/target" in line]


def same(one: Path, other: Path) -> None:
    (weights, fits), (others, other_fits) = learned(one), learned(other)
    assert fits == other_fits and len(fits) == 3
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_pictures_and_captions_are_encoded_once_with_the_same_numbers(
    tmp_path: Path, tiny_model: Path, encoded: list[str]
) -> None:
    for i in range(6):
        write_image(torch.rand(3, 20 + i, 24), tmp_path / "mine" / f"{i}.png")
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a picture of {i} things")
    (tmp_path / "run.yaml").write_text(PICTURES.format(model=tiny_model))
    counts = {}
    for name, changes in {
        "off": ["data.encoded_gib=0"],
        "first": [],
        "later": [],
        "another size": ["data.fit=stretch"],
    }.items():
        encoded.clear()
        train(load(tmp_path / "run.yaml", changes), out=tmp_path / name)
        counts[name] = (encoded.count("picture"), encoded.count("text"))
    assert counts["off"] == (12, 6) and counts["first"] == (6, 6) and counts["later"] == (0, 0)
    assert counts["another size"] == (5, 0)  # the square one is the same picture by either fit
    same(tmp_path / "off", tmp_path / "first")
    same(tmp_path / "off", tmp_path / "later")
    assert learned(tmp_path / "another size")[1] != learned(tmp_path / "off")[1]


@pytest.mark.parametrize(("cut", "later"), [("start", 0), ("random", 12)])
def test_a_random_stretch_of_a_sound_is_never_taken_for_another(
    tmp_path: Path, encoded: list[str], cut: str, later: int
) -> None:
    with torch.random.fork_rng():
        model = write_stable_audio(tmp_path / "model")
    for i in range(4):
        write_audio(torch.rand(1, 3000 + i) - 0.5, 4000, tmp_path / "mine" / f"{i}.wav")
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a sound of {i} things")
    policy = "{name: ddpm, eta: 0, num_inference_steps: 3}"
    text = SOUNDS.format(name="stable_audio", model=model, more=", seconds: 0.1", policy=policy, cut=cut)
    (tmp_path / "run.yaml").write_text(text)
    train(load(tmp_path / "run.yaml", ["data.encoded_gib=0"]), out=tmp_path / "off")
    train(load(tmp_path / "run.yaml"), out=tmp_path / "first")
    encoded.clear()
    train(load(tmp_path / "run.yaml"), out=tmp_path / "later")
    assert encoded.count("sound") == later
    same(tmp_path / "off", tmp_path / "first")
    same(tmp_path / "off", tmp_path / "later")


def test_codes_and_states_are_made_once(tmp_path: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import EncodecModel, T5EncoderModel

    with torch.random.fork_rng():
        model = write_musicgen(tmp_path / "model")
    for i in range(4):
        write_audio(torch.rand(1, RATE // 3 + 50 * i) - 0.5, RATE, tmp_path / "mine" / f"{i}.wav")
        (tmp_path / "mine" / f"{i}.txt").write_text(f"a sound of {i} things")
    policy = "{name: tokens, max_new_tokens: 6}"
    text = SOUNDS.format(name="musicgen", model=model, more=", guided_density: false", policy=policy, cut="start")
    (tmp_path / "run.yaml").write_text(text)
    train(load(tmp_path / "run.yaml", ["data.encoded_gib=0"]), out=tmp_path / "off")
    train(load(tmp_path / "run.yaml"), out=tmp_path / "first")
    for reader, method in ((EncodecModel, "encode"), (T5EncoderModel, "forward")):
        monkeypatch.setattr(reader, method, lambda *given, **named: pytest.fail("it was encoded again"))
    train(load(tmp_path / "run.yaml"), out=tmp_path / "later")
    same(tmp_path / "off", tmp_path / "first")
    same(tmp_path / "off", tmp_path / "later")
