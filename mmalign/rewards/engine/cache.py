"""Scores on disk, by what was scored: SQLite in WAL mode, safe for several processes.

A key is the SHA-256 of the reward (its name, options, code version and the bytes of its weights) and of everything it
may look at: the prompt's text, media and meta, and the exact bytes of the output. Never the output alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.core.digests import feed, value_digest
from mmalign.core.errors import CheckpointError
from mmalign.core.files import cache_root
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Output, Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.traits import RewardTraits

_KEPT = (Status.OK, Status.PARSE_FAIL, Status.NOT_APPLICABLE)  # our own failures are tried again


def default_cache_path() -> Path:
    """`scores.sqlite` in $MMALIGN_CACHE, else in the user's cache folder."""
    return cache_root() / "scores.sqlite"


class ScoreCache:
    """Scores of single rows by content hash; rows with step credit and failed rows are not kept."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else default_cache_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID"
            )
            columns = {name: kind for _, name, kind, *_ in self._db.execute("PRAGMA table_info(scores)")}
            if columns != {"key": "BLOB", "row": "TEXT"}:
                raise sqlite3.DatabaseError(f"its table 'scores' has the columns {', '.join(columns) or 'of no table'}")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Scores]:
        """The rows that are there, each as scores of one row."""
        rows = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, row FROM scores WHERE key IN ({marks})"  # only question marks are formatted in
            for key, text in self._rows(query, some):
                try:
                    rows[key] = _decoded(text)
                except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
                    continue  # of another version, or damaged: scored again, and written over
        return rows

    def _rows(self, query: str, keys: Sequence[bytes]) -> list[tuple[bytes, str]]:
        try:
            return self._db.execute(query, keys).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def write(self, keys: Sequence[bytes], scores: Scores) -> None:
        """Keep every row that has an answer, in one transaction."""
        if scores.per_step is not None:
            return
        answered = [i for i, status in enumerate(scores.status.tolist()) if status in _KEPT]
        rows = [(keys[i], _encoded(scores, i)) for i in answered]
        try:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: cannot be used as a score cache ({error}); delete it or name another file."
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def identity(reward: object) -> str | None:
    """What tells this reward from any other as text; None if its scores may not be cached.

    It must say `deterministic = True` and be a dataclass (its options) or have `fingerprint() -> str` (the digest of
    its weights and preprocessing); `version` is raised when its code changes its values.
    """
    traits = RewardTraits.of(reward)
    if not traits.deterministic:
        return None
    kind = type(reward)
    facts: dict[str, Any] = {
        "code": f"{kind.__module__}.{kind.__qualname__}",
        "version": traits.version,
    }
    if dataclasses.is_dataclass(reward):
        facts["options"] = {f.name: repr(getattr(reward, f.name)) for f in dataclasses.fields(reward) if f.init}
    elif traits.fingerprint is None:
        return None
    if traits.fingerprint is not None:
        facts["fingerprint"] = traits.fingerprint()
    return json.dumps(facts, sort_keys=True)


def row_keys(who: str, rollout: Rollout) -> list[bytes]:
    """One key per row for the reward `who` (`identity`)."""
    start = hashlib.sha256(who.encode())
    keys = []
    for row, prompt in enumerate(rollout.prompts):
        digest = start.copy()
        feed(digest, prompt)
        feed(digest, _output(rollout.output, row))
        keys.append(digest.digest())
    return keys


def prompt_key(prompt: Prompt) -> bytes:
    """The digest of all that a prompt holds: its words, media and facts."""
    return value_digest(prompt)


def _output(output: Output, row: int) -> Any:
    if isinstance(output, Audio):
        mask = None if output.mask is None else output.mask[row]
        return {"samples": output.samples[row], "rate": output.rate, "mask": mask}
    return output[row]


def _encoded(scores: Scores, row: int) -> str:
    fields = {
        "value": _number(scores.value[row]),
        "status": int(scores.status[row]),
        "confidence": None if scores.confidence is None else _number(scores.confidence[row]),
        "parts": {name: _number(part[row]) for name, part in scores.parts.items()},
        "info": scores.info[row] if scores.info else "",
    }
    return json.dumps(fields)


def _number(value: Tensor) -> float | None:
    number = float(value.detach())
    return None if math.isnan(number) else number


def _decoded(text: str) -> Scores:
    row = json.loads(text)

    def one(number: float | None) -> Tensor:
        return torch.tensor([float("nan") if number is None else number], dtype=torch.float32)

    return Scores(
        value=one(row["value"]),
        status=torch.tensor([row["status"]], dtype=torch.int8),
        confidence=None if row["confidence"] is None else one(row["confidence"]),
        parts={name: one(number) for name, number in row["parts"].items()},
        info=[row["info"]] if row["info"] else None,
    )
