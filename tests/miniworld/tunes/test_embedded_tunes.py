"""The saved models of sound load with plain diffusers and transformers and do roughly what their provenance says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.tunes.clips import play_clips
from mmalign.miniworld.tunes.grammar import hard_negatives, parse
from mmalign.miniworld.tunes.styles import STYLES
from mmalign.miniworld.tunes.tune import RATE, SAMPLES
from mmalign.miniworld.tunes.verifier import verify, verify_batch
from mmalign.rewards import load_reward
from pipelines.miniworld.tunes.train_generator import generate_heldout


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import StableAudio3Pipeline

    return StableAudio3Pipeline.from_pretrained(asset_path("tunes_sa3"), dtype=torch.float32)


def promised(name: str) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((asset_path(name) / "provenance.json").read_text(encoding="utf-8"))[
        "metrics"
    ]
    return metrics


def test_the_generator_plays_what_is_asked_as_often_as_promised(pipeline) -> None:
    clips, requests = generate_heldout(pipeline, 64, 8, 3.0)
    assert clips.shape == (64, SAMPLES) and np.isfinite(clips).all()
    verdict = verify_batch(clips, requests)
    assert abs(verdict.fulfilled.mean() - promised("tunes_sa3")["heldout_verified_8_steps_guidance_3"]) < 0.2
    assert verdict.fraction.mean() > 0.65


def test_the_clap_picks_the_true_caption_among_near_misses() -> None:
    from mmalign.core.types import Audio, Prompt, Rollout

    clap, rng = load_reward("clap", checkpoint=str(asset_path("tunes_clap"))), np.random.default_rng(0)
    clips, requests, tunes = play_clips(40, 5, "train")
    sound, found = torch.from_numpy(clips)[:, None], []
    for row, (request, tune) in enumerate(zip(requests, tunes, strict=True)):
        texts = [request.text, *(other.text for other in hard_negatives(request, 7, rng, tune))]
        same = Audio(sound[row : row + 1].expand(len(texts), -1, -1), RATE)
        scores = clap(Rollout([Prompt(text) for text in texts], same, torch.zeros(len(texts), dtype=torch.long)))
        found.append(int(scores.value.argmax()) == 0)
    assert np.mean(found) > 0.6  # of 8; chance is one in eight


@pytest.mark.parametrize("style", STYLES)
def test_exemplars_play_their_captions(style: str) -> None:
    from mmalign.media.audio import read_audio

    folder = asset_path("exemplars") / style
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    words = (asset_path("exemplars") / f"{style}.txt").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 32 and {row["prompt"] for row in rows} == set(words)
    for row in rows[:8]:
        samples, rate = read_audio(Path(folder) / row["output"])
        assert rate == RATE and all(verify(samples[0].numpy(), parse(row["prompt"])))
