"""The saved models load with plain diffusers and open_clip, and do roughly what their provenance says."""

import json

import numpy as np
import pytest

from mmalign.miniworld.assets import AssetMissing, asset_path
from mmalign.miniworld.splits import distinct_requests
from mmalign.miniworld.verifier import verify_batch
from pipelines.miniworld.scenes.pictures import draw_pictures
from pipelines.miniworld.scenes.words import build_tokenizer, grammar_words

MEBIBYTE = 2**20


def provenance(name: str) -> dict:
    return json.loads((asset_path(name) / "provenance.json").read_text(encoding="utf-8"))


def test_missing_asset_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("MMALIGN_ASSETS", str(tmp_path))
    with pytest.raises(AssetMissing, match=r"make it with: python -m pipelines\.miniworld clip"):
        asset_path("scenes_clip")


def test_every_grammar_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer(word).input_ids) == 3 for word in grammar_words())
    assert len(tokenizer("a small red circle left of a large blue square").input_ids) == 12


EMBEDDED = [f"scenes_{name}" for name in ("sd3", "clip", "judge", "rewriter", "vlm", "captioner", "grounder")]


@pytest.mark.parametrize("name", [*EMBEDDED, "tunes_sa3", "tunes_clap"])
def test_assets_are_small_and_say_how_they_were_made(name: str) -> None:
    folder = asset_path(name)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 16 * MEBIBYTE
    assert not [file for file in folder.rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]
    assert {"command", "commit", "seed", "steps", "seconds", "metrics"} <= set(provenance(name))


def test_the_captioner_learned_from_careless_captions() -> None:
    made = provenance("scenes_captioner")
    assert made["careless"] == 0.6 and made["metrics"]["caption_clauses"] < 0.45


def test_the_grounder_learned_from_loose_boxes() -> None:
    made = provenance("scenes_grounder")
    assert made["loose"] == 0.6 and made["metrics"]["box_iou"] < 0.7 * made["earlier"]["metrics"]["box_iou"]


def test_the_rewriter_learned_from_careless_rewrites() -> None:
    made = provenance("scenes_rewriter")
    assert made["careless"] == 0.6 and made["metrics"]["heldout_meaning"]["greedy"] < 0.15


def test_pipeline_runs_in_plain_diffusers_and_keeps_its_promise() -> None:
    import torch
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(asset_path("scenes_sd3"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    requests = distinct_requests("heldout", 32)
    images = pipeline(
        [request.text for request in requests],
        height=64,
        width=64,
        num_inference_steps=10,
        guidance_scale=0.0,
        max_sequence_length=1,  # what it was trained with
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images
    fulfilled = verify_batch(images.transpose(0, 3, 1, 2), requests).fulfilled.mean()
    promised = provenance("scenes_sd3")["metrics"]["heldout_verified_10_steps"]
    # Three standard errors of 32 draws.
    assert abs(fulfilled - promised) < 3 * np.sqrt(0.25 / 32)


def test_silent_encoder_is_the_same_as_none() -> None:
    import torch
    from diffusers import StableDiffusion3Pipeline

    folder = asset_path("scenes_sd3")
    images = []
    for absent in ({}, {"text_encoder_3": None, "tokenizer_3": None}):
        pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, **absent)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        size = {"height": 64, "width": 64, "num_inference_steps": 2, "max_sequence_length": 1}
        images.append(pipeline("a red circle", **size, generator=generator, output_type="np").images)
    assert np.array_equal(*images) or np.abs(images[0] - images[1]).max() < 1e-5


def test_autoencoder_keeps_held_out_scenes_readable() -> None:
    from diffusers import AutoencoderKL

    from pipelines.miniworld.scenes.train_autoencoder import decode, encode_means

    images, requests, _ = draw_pictures(64, seed=77, split="heldout")
    model = AutoencoderKL.from_pretrained(asset_path("scenes_sd3") / "vae")
    latents = encode_means(model, images)
    scaled = (latents - model.config.shift_factor) * model.config.scaling_factor
    assert abs(float(scaled.mean())) < 0.1 and abs(float(scaled.std()) - 1) < 0.1
    assert verify_batch(decode(model, latents).numpy(), requests).fulfilled.mean() >= 0.95


@pytest.mark.parametrize("name", ["scenes_clip"])
def test_clip_loads_with_open_clip_and_prefers_the_true_caption(name: str) -> None:
    import open_clip
    import torch

    from pipelines.miniworld.scenes.train_clip import accuracy, normalise

    source = f"local-dir:{asset_path(name)}"
    model, _, preprocess = open_clip.create_model_and_transforms(source)
    tokens = open_clip.get_tokenizer(source)(["a red circle", "a blue star"])
    assert model.eval().encode_text(tokens).isfinite().all()
    from PIL import Image

    pixels = draw_pictures(1, seed=5)[0]
    prepared = preprocess(Image.fromarray(pixels[0].transpose(1, 2, 0)))
    torch.testing.assert_close(prepared, normalise(torch.from_numpy(pixels[0]).float() / 255), atol=1e-4, rtol=0)
    promised = provenance(name)["metrics"]["heldout_accuracy_of_32"]
    assert abs(accuracy(model, 64) - promised) < 3 * np.sqrt(promised * (1 - promised) / 64) + 0.03
