"""Instruments that no caption names: they play what is asked, and whoever is told a timbre is told wrong."""

import numpy as np

from mmalign.miniworld.tunes.grammar import parse
from mmalign.miniworld.tunes.instruments import INSTRUMENTS, unnamed
from mmalign.miniworld.tunes.tune import ATTRIBUTES
from mmalign.miniworld.tunes.verifier import read_tune
from pipelines.miniworld.tunes.train_clap import attributes, play_unnamed, truths


def test_no_two_are_alike_and_none_is_one_of_the_five() -> None:
    rng = np.random.default_rng(0)
    drawn = [unnamed(rng) for _ in range(50)]
    partials = {each.partials for each in drawn}
    assert len(partials) == 50 and not partials & {each.partials for each in INSTRUMENTS.values()}
    assert all(min(each.partials) > 0 and (each.ratios is None or len(each.ratios) == 3) for each in drawn)
    assert 5 < sum(each.ratios is not None for each in drawn) < 25


def test_they_play_what_captions_ask_and_captions_name_no_timbre() -> None:
    clips, requests, tunes = play_unnamed(40, 3)
    assert np.isfinite(clips).all() and 0.29 < np.abs(clips).max(axis=1).min() <= np.abs(clips).max() < 0.81
    assert all("timbre" not in request.stated for request in requests) and {tune.timbre for tune in tunes} == {""}
    read = [read_tune(clip) for clip in clips]
    for name in ("tempo", "rhythm", "register"):
        assert np.mean([getattr(a, name) == getattr(b, name) for a, b in zip(read, tunes, strict=True)]) > 0.8, name


def test_a_caption_with_a_timbre_is_false_of_them() -> None:
    _, requests, tunes = play_unnamed(8, 5)
    named = [parse(f"{timbre} {tunes[0].texture}") for timbre in ATTRIBUTES["timbre"]]
    found = truths(tunes, [*requests, *named])
    assert found[:, : len(tunes)].diagonal().all() and not found[:, len(tunes) :].any()
    assert (attributes(tunes)[:, list(ATTRIBUTES).index("timbre")] == -1).all()
