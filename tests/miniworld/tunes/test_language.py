"""Captions of tunes, the requests they state, and the splits: what is held out is really held out."""

from pathlib import Path

import numpy as np
import pytest

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.tunes.clips import play_clips
from mmalign.miniworld.tunes.compositions import UNSEEN, plays_unseen, unseen_compositions
from mmalign.miniworld.tunes.grammar import (
    CaptionError,
    all_requests,
    hard_negatives,
    holds,
    parse,
    restatements,
    sample_request,
    sample_tune,
)
from mmalign.miniworld.tunes.language import make_request
from mmalign.miniworld.tunes.splits import distinct_requests, heldout_requests, train_requests, write_prompt_files
from mmalign.miniworld.tunes.styles import STYLES, sample_style
from mmalign.miniworld.tunes.tune import ATTRIBUTES, Tune


def test_every_caption_parses_back_exactly() -> None:
    requests = list(all_requests())
    assert len({request.text for request in requests}) == len(requests) == 3 * 3 * 4 * 3 * 6 * 4
    for request in requests:
        assert parse(request.text) == request
    assert parse("  Slow RISING low flute notes. ").stated == {
        "tempo": "slow",
        "direction": "rising",
        "register": "low",
        "timbre": "flute",
        "texture": "notes",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends in what is played: one of notes, major chords, minor chords, chords"),
        ("slow flute", "ends in what is played"),
        ("loud notes", "cannot read 'loud' in 'loud notes': the words are"),
        ("slow fast notes", "once at most, in this order"),
        ("flute slow notes", "state each of tempo, rhythm, direction, register, timbre, texture once"),
        ("notes notes", "once at most"),
        ("minor notes", "cannot read 'minor'"),
        ("a red circle", "cannot read 'a'"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(CaptionError, match=why):
        parse(text)


def test_requests_of_unknown_values_are_refused() -> None:
    with pytest.raises(CaptionError, match=r"cannot ask for tempo 'brisk': use one of slow, fast"):
        make_request({"tempo": "brisk", "texture": "notes"})
    with pytest.raises(CaptionError, match=r"cannot ask for mood 'sad': use one of tempo, rhythm"):
        make_request({"mood": "sad", "texture": "notes"})


def test_chords_are_either_chords_and_nothing_holds_of_the_unknown() -> None:
    tune = Tune("slow", "even", "rising", "low", "flute", "major chords")
    assert holds(tune, parse("slow flute chords")) == [True, True, True]
    assert holds(tune, parse("fast minor chords")) == [False, False]
    assert not any(holds(Tune(*["unknown"] * 6), parse("slow even rising low flute chords")))


def test_drawn_tunes_fulfil_their_requests() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        request = sample_request(rng)
        assert all(holds(sample_tune(request, rng), request))


def test_near_misses_are_false_and_restatements_true() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        request = sample_request(rng)
        tune = sample_tune(request, rng)
        wrong = hard_negatives(request, 8, rng, tune)
        assert len({other.text for other in wrong}) == 8 and not any(all(holds(tune, other)) for other in wrong)
        assert all(all(holds(tune, other)) for other in restatements(request, tune))
        for other in hard_negatives(request, 3, rng):  # of no tune are both true
            assert not all(holds(sample_tune(other, rng), request))
        assert not any(unseen_compositions(other) for other in hard_negatives(request, 8, rng, tune, split="train"))


def test_splits_share_no_composition() -> None:
    train, heldout = train_requests(1500), heldout_requests(400)
    assert not any(unseen_compositions(request) for request in train)
    assert all(unseen_compositions(request) for request in heldout)
    assert not {request.text for request in train} & {request.text for request in heldout}
    for name, values in ATTRIBUTES.items():  # every value is asked for in training
        assert {request.stated.get(name) for request in train} >= set(values)
    assert {pair for request in heldout for pair in unseen_compositions(request)} == UNSEEN
    assert train_requests(50, seed=1) == train_requests(50, seed=1) != train_requests(50, seed=2)
    with pytest.raises(ValueError, match=r"unknown split 'test' in sample_request: use 'train', 'heldout' or 'any'"):
        sample_request(np.random.default_rng(0), "test")


def test_what_is_held_out_is_never_played_in_training_but_each_value_is() -> None:
    rng = np.random.default_rng(3)
    tunes = [sample_tune(request, rng, seen_only=True) for request in train_requests(600, seed=5)]
    assert not any(plays_unseen(tune) for tune in tunes)
    played = {pair for tune in tunes for pair in zip(tune._fields, tune, strict=True)}
    assert played == {(name, value) for name, values in ATTRIBUTES.items() for value in values}
    assert not any(plays_unseen(tune) for tune in play_clips(40, 0)[2])
    assert all(plays_unseen(tune) for tune in play_clips(20, 0, "heldout")[2])


def test_prompt_files_are_what_the_splits_give(tmp_path: Path) -> None:
    write_prompt_files(tmp_path)
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.iterdir()}
    assert {name: len(found) for name, found in lines.items()} == {"tunes_train.txt": 1000, "tunes_heldout.txt": 256}
    assert lines["tunes_heldout.txt"] == [request.text for request in distinct_requests("heldout", 256)]
    for name, found in lines.items():
        assert found == asset_path(f"prompts/{name}").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("style", STYLES)
def test_styles_fix_what_they_say_and_are_heard_in_training(style: str) -> None:
    rng = np.random.default_rng(4)
    drawn = [sample_style(style, rng) for _ in range(60)]
    for tune, request in drawn:
        assert STYLES[style].items() <= tune._asdict().items() and all(holds(tune, request))
        assert len(request.clauses) == 6 and not plays_unseen(tune)
    assert len({tune for tune, _ in drawn}) > 3
    with pytest.raises(ValueError, match="unknown style 'polka' in sample_style: use one of chimes, jig"):
        sample_style("polka", rng)
