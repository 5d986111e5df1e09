"""Blind votes: places, tallies, the file, and rows that DPO's data source reads."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mmalign.core.errors import DataError
from mmalign.data.sources.preferences import Preferences
from mmalign.demo.pairs import START, open_pairs, write_preferences
from mmalign.demo.votes import (
    Vote,
    Votes,
    a_stands_left,
    choice_of,
    next_pair,
    reward_agreement,
    vote_win_rate,
    voters_agreement,
)
from mmalign.evaluation.bootstrap import mean_interval
from mmalign.evaluation.records import Evaluation
from tests.evaluation.runs import make_evaluation, make_run
from tests.typecheck import unchecked

ABOUT = {"a": "/runs/one", "b": "/runs/two", "prompts": "0"}


def test_places_are_drawn_for_each_voter_and_stay() -> None:
    left = [a_stands_left("ann", pair) for pair in range(400)]
    assert left == [a_stands_left("ann", pair) for pair in range(400)] and 160 < sum(left) < 240
    assert left != [a_stands_left("bob", pair) for pair in range(400)]
    assert [choice_of(place, a_left) for a_left in (True, False) for place in ("left", "tie", "right")] == [
        *("a", "tie", "b"),
        *("b", "tie", "a"),
    ]


def test_pairs_with_few_votes_come_first_and_none_twice() -> None:
    votes = [Vote(0, "ann", "a"), Vote(1, "ann", "b"), Vote(0, "bob", "tie"), Vote(9, "bob", "a")]
    assert next_pair(votes, "ann", 3) == 2 and next_pair(votes, "bob", 3) == 2 and next_pair(votes, "eve", 2) == 1
    assert next_pair([*votes, Vote(2, "ann", "a")], "ann", 3) is None and next_pair([], "ann", 3) == 0
    assert next_pair([], "ann", 3, {0, 1}) == 2 and next_pair([], "ann", 1, {0}) is None


def test_win_rate_and_agreement_resample_pairs() -> None:
    votes = [Vote(pair, voter, "b" if pair else "tie") for pair in range(10) for voter in ("ann", "bob", "eve")]
    rate = vote_win_rate(votes)
    worth = np.array([0.5 if vote.pair == 0 else 1.0 for vote in votes])
    assert rate == mean_interval(worth, np.array([vote.pair for vote in votes])) and rate.value == pytest.approx(0.95)
    assert voters_agreement(votes).value == 1.0
    # of three voters two agree: one of three couples
    votes[1] = Vote(0, "bob", "a")
    assert voters_agreement(votes).value == pytest.approx((9 + 1 / 3) / 10) and voters_agreement(votes).n == 10
    assert voters_agreement([Vote(0, "ann", "a"), Vote(1, "bob", "a")]).n == 0 and np.isnan(vote_win_rate([]).value)


def test_a_reward_agrees_where_it_prefers_the_same() -> None:
    a, b = np.array([0.0, 1.0, 0.0, np.nan]), np.array([1.0, 0.0, 0.0, 1.0])
    votes = [Vote(0, "x", "b"), Vote(1, "x", "b"), Vote(2, "x", "a"), Vote(3, "x", "a"), Vote(0, "y", "tie")]
    found = reward_agreement(votes, a, b)
    assert (found.value, found.n) == (0.5, 2)  # ties of the reward, of the voter, and rows without a value say nothing


def test_votes_are_kept_replaced_undone_and_never_mixed(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "deep" / "votes.sqlite", ABOUT)
    for vote in (Vote(0, "ann", "a"), Vote(1, "ann", "b"), Vote(0, "ann", "tie")):
        votes.add(vote)
    again = Votes(tmp_path / "deep" / "votes.sqlite", ABOUT)
    assert again.all() == [Vote(1, "ann", "b"), Vote(0, "ann", "tie")]
    assert again.undo("ann") == 0 and again.undo("bob") is None and again.all() == [Vote(1, "ann", "b")]
    with pytest.raises(DataError, match=r"its votes are about others \(b /runs/two\); move it away to begin anew"):
        Votes(votes.path, ABOUT | {"b": "/runs/three"})
    with unchecked(), pytest.raises(sqlite3.IntegrityError):
        votes.add(Vote(0, "ann", "none"))  # type: ignore[arg-type]
    (tmp_path / "text.sqlite").write_text("not a data base, but long enough to be taken for a file of some kind" * 20)
    with pytest.raises(DataError, match="votes cannot be kept there"):
        Votes(tmp_path / "text.sqlite", ABOUT)


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_rows_are_those_that_preferences_reads(tmp_path: Path, modality: str) -> None:
    one, two = (make_run(tmp_path / name, modality, made=i) for i, name in enumerate(("one", "two")))
    pairs = open_pairs(two, str(one))
    assert pairs.names == ("one", "two") and pairs.count == 6 and pairs.rewards() == ["clip", "truth"]
    votes = [Vote(0, "x", "a"), Vote(2, "x", "b"), Vote(2, "y", "b"), Vote(2, "z", "a"), Vote(4, "x", "tie")]
    assert write_preferences(pairs, votes, tmp_path / "out") == 3
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["label"], row["votes"]) for row in rows] == [(1.0, 1), (1.0, 3), (0.5, 1)]
    assert rows[1]["share"] == pytest.approx(2 / 3) and rows[1]["count"] == 2  # columns of the row stay
    if modality != "text":
        assert [row["chosen"][0] for row in rows] == ["a", "b", "b"] and [row["rejected"][0] for row in rows] == [
            "b",
            "a",
            "a",
        ]
    read = list(Preferences(path=str(tmp_path / "out" / "rows.jsonl")).training_items())
    assert len(read) == 3 and read[1].prompt.text == "prompt 2"


def test_a_run_is_compared_with_its_start_and_only_with_the_same_prompts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", made=1)
    pairs = open_pairs(run, START)
    assert pairs.names == ("start of run", "run") and pairs.a.values("clip")[0] < pairs.b.values("clip")[0]
    other = make_run(tmp_path / "other")
    make_evaluation(0.5, rows=4).save(other / "evaluation" / "after")
    with pytest.raises(DataError, match="no two of their evaluations"):
        open_pairs(run, str(other))
    kept = Evaluation.load(run / "evaluation" / "after")
    kept.outputs = kept.outputs[:0]
    kept.save(run / "evaluation" / "after")
    with pytest.raises(DataError, match="no outputs of the same prompts were kept in both"):
        open_pairs(run, START)
    with pytest.raises(DataError, match="there are no votes to export yet"):
        write_preferences(pairs, [Vote(99, "x", "a")], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_pairs_that_are_the_same_are_nobody_s_to_vote_on(tmp_path: Path, modality: str) -> None:
    one, two = (make_run(tmp_path / name, modality) for name in ("one", "two"))
    with pytest.raises(DataError, match="all 6 pairs are the same on both sides"):
        open_pairs(two, str(one))
    other = Evaluation.load(two / "evaluation" / "after")
    changed = make_evaluation(0.75, modality, made=3)
    if modality == "audio":
        other.outputs.samples[4] = changed.outputs.samples[4]
    else:
        other.outputs[4] = changed.outputs[4]
    other.save(two / "evaluation" / "after")
    assert open_pairs(two, str(one)).same == {0, 1, 2, 3, 5}
