"""Blind votes on pairs of outputs: who stands left, what was voted, what the votes say. Nothing here shows anything.

Votes lie in a SQLite file, one per voter and pair; its `about` says which two evaluations they are about.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.evaluation.bootstrap import Interval, mean_interval

__all__ = [
    "Choice",
    "Place",
    "Vote",
    "Votes",
    "a_stands_left",
    "choice_of",
    "next_pair",
    "reward_agreement",
    "vote_win_rate",
    "voters_agreement",
]

Choice = Literal["a", "b", "tie"]
Place = Literal["left", "right", "tie"]
WORTH: dict[Choice, float] = {"a": 0.0, "tie": 0.5, "b": 1.0}
NAME_LETTERS = 80


@dataclass(frozen=True)
class Vote:
    """What one voter said of one pair: A is better, B is better, or neither."""

    pair: int
    voter: str
    choice: Choice


def a_stands_left(voter: str, pair: int) -> bool:
    """Does A stand left? Decided by name and number alone: for half of all, and the same when a pair comes again."""
    return hashlib.sha256(f"{voter}\0{pair}".encode()).digest()[0] % 2 == 0


def choice_of(place: Place, a_left: bool) -> Choice:
    """What a vote for a place means."""
    if place == "tie":
        return "tie"
    return "a" if (place == "left") == a_left else "b"


def next_pair(votes: Sequence[Vote], voter: str, count: int, skip: Collection[int] = ()) -> int | None:
    """The pair of `count` that `voter` sees next: one with the fewest votes of all; None when they have seen all.

    Those of `skip` are shown to nobody.
    """
    seen = {vote.pair for vote in votes if vote.voter == voter} | set(skip)
    given = [0] * count
    for vote in votes:
        if vote.pair < count:
            given[vote.pair] += 1
    return min((pair for pair in range(count) if pair not in seen), key=lambda pair: (given[pair], pair), default=None)


def vote_win_rate(votes: Sequence[Vote]) -> Interval:
    """The share of votes for B, a tie being half a vote, with its 95 % interval by a bootstrap over pairs."""
    return mean_interval(np.array([WORTH[vote.choice] for vote in votes]), np.array([vote.pair for vote in votes]))


def voters_agreement(votes: Sequence[Vote]) -> Interval:
    """How often two voters say the same of a pair, with its interval over pairs; those with one voter are left out.

    Every two voters of a pair count once, and every pair once, as in the observed agreement of Fleiss (Psychological
    Bulletin 76, 1971).
    """
    by_pair: dict[int, list[Choice]] = {}
    for vote in votes:
        by_pair.setdefault(vote.pair, []).append(vote.choice)
    shares = [
        float(np.mean([one == two for one, two in combinations(choices, 2)]))
        for choices in by_pair.values()
        if len(choices) > 1
    ]
    return mean_interval(np.array(shares, dtype=np.float64))


def reward_agreement(votes: Sequence[Vote], a: Float[np.ndarray, " B"], b: Float[np.ndarray, " B"]) -> Interval:
    """How often a reward prefers what voters prefer, over votes and pairs without a tie; its interval is over pairs.

    Args:
        votes: of pairs that are rows of `a` and `b`.
        a, b: the reward's values of the two sides; a pair in which one is NaN is left out.
    """
    difference = b - a
    decided = [v for v in votes if v.choice != "tie" and not np.isnan(difference[v.pair]) and difference[v.pair] != 0]
    same = [float((difference[vote.pair] > 0) == (vote.choice == "b")) for vote in decided]
    return mean_interval(np.array(same, dtype=np.float64), np.array([vote.pair for vote in decided], dtype=np.int64))


class Votes:
    """The votes in one SQLite file, which is made where it is not there.

    Raises:
        DataError: it is no such file, or its votes are about something else than `about`.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._begin(about)
        except (sqlite3.DatabaseError, OSError) as error:
            raise DataError(f"{path}: votes cannot be kept there ({error}).") from None

    def _begin(self, about: Mapping[str, str]) -> None:
        with self._open() as file:
            file.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            file.execute(
                "CREATE TABLE IF NOT EXISTS votes (pair INTEGER NOT NULL, voter TEXT NOT NULL, choice TEXT NOT NULL "
                f"CHECK (choice IN {get_args(Choice)}), at TEXT NOT NULL, PRIMARY KEY (pair, voter))"
            )
            known = dict(file.execute("SELECT key, value FROM about"))
            if known and known != dict(about):
                other = ", ".join(f"{key} {known.get(key)}" for key in about if known.get(key) != about[key])
                raise DataError(f"{self.path}: its votes are about others ({other}); move it away to begin anew.")
            file.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about.items())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=10)) as file, file:
            yield file

    def all(self) -> list[Vote]:
        """Every vote, in the order in which they were given."""
        with self._open() as file:
            return [Vote(*row) for row in file.execute("SELECT pair, voter, choice FROM votes ORDER BY at, pair")]

    def add(self, vote: Vote) -> None:
        """Keep a vote; a second one of a voter on a pair takes the place of the first."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        with self._open() as file:
            file.execute(
                "INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?)",
                (vote.pair, vote.voter[:NAME_LETTERS], vote.choice, now),
            )

    def undo(self, voter: str) -> int | None:
        """Remove the last vote of a voter; returns its pair, None where there is none."""
        with self._open() as file:
            query = "SELECT pair FROM votes WHERE voter = ? ORDER BY at DESC LIMIT 1"
            last = file.execute(query, (voter[:NAME_LETTERS],)).fetchone()
            if last is None:
                return None
            file.execute("DELETE FROM votes WHERE pair = ? AND voter = ?", (last[0], voter[:NAME_LETTERS]))
            return int(last[0])
