"""Tunes by clockwork: the verifier reads them, and held tones look the same in every frame."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.miniworld.tunes.clockwork import FRAME, LEAD, play_clips_in_step, play_in_step, tempered
from mmalign.miniworld.tunes.language import holds
from mmalign.miniworld.tunes.tune import RATE, SAMPLES, Tune
from mmalign.miniworld.tunes.verifier import verify_batch
from pipelines.miniworld.tunes.train_autoencoder import FrameCoder, assemble, normalise, polish
from pipelines.miniworld.tunes.train_clap import Examples, truths
from pipelines.miniworld.tunes.words import MAX_TOKENS, build_tokenizer, tokenize


def test_clockwork_tunes_are_read_back_exactly() -> None:
    clips, requests, tunes = play_clips_in_step(100, 3, "any")
    verdict = verify_batch(clips, requests)
    assert verdict.fulfilled.mean() >= 0.99
    assert np.mean([read == played for read, played in zip(verdict.tunes, tunes, strict=True)]) >= 0.99
    peaks = np.abs(clips).max(axis=1)
    assert clips.shape == (100, SAMPLES) and peaks.min() >= 0.299 and peaks.max() <= 0.801


def test_a_held_tone_is_the_same_in_every_frame() -> None:
    clip = play_in_step(Tune("slow", "even", "repeated", "low", "clarinet", "major chords"), np.random.default_rng(0))
    frames = clip.reshape(-1, FRAME)
    alike = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)) for a, b in pairwise(frames)]
    assert max(alike) > 0.9999  # attack and release are short, so two frames within a note are all sustain
    edges = np.flatnonzero(np.abs(clip[1:] - clip[:-1]) > 0)
    assert LEAD <= edges[0] < LEAD + 2


def test_keys_are_tempered_and_have_whole_periods() -> None:
    keys = np.array([tempered(440.0 * 2 ** (n / 12)) for n in range(-10, 30)])
    cents = 1200 * np.log2(keys * RATE / FRAME / (440.0 * 2 ** (np.arange(-10, 30) / 12)))
    assert np.abs(cents).max() < 30 and (np.diff(keys) > 0).all()
    assert tempered(440.0) == tempered(440.0 * 2 ** (0.4 / 12)) == 56


def test_the_autoencoder_computes_what_the_frame_coder_does() -> None:
    torch.manual_seed(0)
    sound = torch.from_numpy(play_clips_in_step(20, 1)[0])
    coder = FrameCoder(sound.view(-1, FRAME))
    with torch.no_grad():
        for weight in coder.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        before = coder.decode(coder.encode(sound.view(-1, FRAME)))
        normalise(coder, sound.view(-1, FRAME))
        latents = coder.encode(sound.view(-1, FRAME))
        torch.testing.assert_close(coder.decode(latents), before, rtol=0, atol=1e-5)
        assert latents.mean(0).abs().max() < 1e-4 and (latents.std(0) - 1).abs().max() < 1e-3
        model = assemble(coder)
        found = model.encode(sound[:, None]).latents
        torch.testing.assert_close(found.transpose(1, 2).reshape(latents.shape), latents, rtol=0, atol=1e-4)
        torch.testing.assert_close(model.decode(found).sample.view(before.shape), before, rtol=0, atol=1e-4)


def test_polishing_trains_both_halves_and_is_saved(tmp_path: Path) -> None:
    from diffusers import AutoencoderSAME

    torch.manual_seed(0)
    sound = torch.from_numpy(play_clips_in_step(4, 1)[0])
    coder = FrameCoder(sound.view(-1, FRAME))
    with torch.no_grad():
        coder.played.weight.add_(0.02 * torch.randn_like(coder.played.weight))  # no row of it is zero once trained
        model = assemble(coder)
        latents, played = model.encode(sound[:, None]).latents, model(sound[:, None]).sample
    record = polish(model, tmp_path / "codec", steps=12, seed=0, clips=4, earlier={"seed": 5})
    again = AutoencoderSAME.from_pretrained(tmp_path / "codec")
    with torch.no_grad():
        moved = (again.encode(sound[:, None]).latents - latents).abs().max()
        assert 1e-5 < moved < 1.0
        assert again(sound[:, None]).sample.isfinite().all()
        assert (again(sound[:, None]).sample - played).abs().max() > 1e-4
    assert record["seed"] == 5 and record["polish_steps"] == 12


def test_truths_are_those_of_the_grammar() -> None:
    _, requests, tunes = play_clips_in_step(25, 6, "any")
    expected = torch.tensor([[all(holds(tune, request)) for request in requests] for tune in tunes])
    assert torch.equal(truths(tunes, requests), expected) and 0 < expected.float().mean() < 0.5


def test_captions_for_contrast_are_true_first_and_false_after() -> None:
    _, requests, tunes = play_clips_in_step(6, 8, "train")
    captions = Examples(torch.empty(0), requests, tunes).captions(np.arange(6), np.random.default_rng(0))
    assert all(all(holds(tune, caption)) for tune, caption in zip(tunes, captions, strict=False))
    for i, caption in enumerate(captions[6:]):
        assert not all(holds(tunes[i // 2], caption))


def test_every_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    read = tokenize(tokenizer, ["slow dotted falling low clarinet minor chords", "Fast bell notes", ""])
    assert read["input_ids"].shape == (3, MAX_TOKENS) and read["attention_mask"].sum(1).tolist() == [9, 5, 2]
    assert tokenizer.unk_token_id not in read["input_ids"] and tokenizer("slow tuba").input_ids[2] == 3


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_splits_are_kept(split: str) -> None:
    from mmalign.miniworld.tunes.compositions import unseen_compositions

    _, requests, _ = play_clips_in_step(20, 2, split)
    assert all(bool(unseen_compositions(request)) == (split == "heldout") for request in requests)
