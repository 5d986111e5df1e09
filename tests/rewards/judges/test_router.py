"""Rows go to the reward that their kind names: values, statuses, traits, and kinds that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward

TABLE: dict[str, Any] = {"match": {"name": "exact_match"}, "open": {"name": "length", "low": 4.0, "high": 9.0}}


def rollout_of(*rows: tuple[str, dict[str, Any]]) -> Rollout:
    return Rollout([Prompt("q", meta=meta) for _, meta in rows], [text for text, _ in rows], torch.arange(len(rows)))


ROWS = [
    ("5", {"kind": "match", "answer": "5"}),
    ("a b", {"kind": "open"}),
    ("6", {"kind": "match", "answer": "5"}),
    ("a b c d", {"kind": "open", "answer": "no one asks"}),
]


def test_each_row_has_the_value_of_its_own_reward() -> None:
    scores = load_reward("router", table=TABLE)(rollout_of(*ROWS))
    own = load_reward("length", low=4.0, high=9.0)(rollout_of(*ROWS)).value
    assert scores.value.tolist() == pytest.approx([1.0, float(own[1]), 0.0, float(own[3])])
    order = [3, 1, 0, 2]
    turned = load_reward("router", table=TABLE)(rollout_of(*(ROWS[i] for i in order)))
    assert torch.equal(turned.value, scores.value[order])


def test_statuses_and_what_stands_for_no_kind() -> None:
    rows = [
        *ROWS[:1],
        ("5", {"kind": "match"}),
        ("5", {}),
        ("5", {"kind": "mach"}),
        ("", {"kind": "match", "answer": "5"}),
    ]
    scores = Guarded("router", load_reward("router", table=TABLE), failed_share=1.0)(rollout_of(*rows))
    wanted = [Status.OK, Status.NOT_APPLICABLE, Status.NOT_APPLICABLE, Status.ERROR, Status.PARSE_FAIL]
    assert scores.status.tolist() == wanted and "Did you mean 'match'?" in scores.info[3]
    assert scores.value[4] == 0
    rest = load_reward("router", table=TABLE, otherwise=1.0)
    scores = Guarded("router", rest, failed_share=1.0)(rollout_of(*rows))
    assert scores.status[2:4].tolist() == [0, 0] and scores.value[2:4].tolist() == [1, 1] and rest.needs == ()


def test_ranges_and_traits_are_those_of_all() -> None:
    low = {"name": "repetition"}
    raw = load_reward("router", table=TABLE | {"fresh": low})
    assert raw.range == (-1.0, 1.0) and raw.modalities == {"text"} and raw.needs == ("kind",)
    scaled = load_reward("router", table=TABLE | {"fresh": low}, scale="range")
    assert scaled.range == (0.0, 1.0)
    row = ("a b c d", {"kind": "fresh"})
    assert raw(rollout_of(row)).value.item() == 0 and scaled(rollout_of(row)).value.item() == 1
    assert raw.deterministic and not raw.batch_dependent
    assert load_reward("router", table={"a": {"name": "group_length"}}).batch_dependent
    with pytest.raises(ValueError, match="no kind of the table"):
        raw.check_data(Prompt("q", meta={"kind": "other"}))
    assert raw.fingerprint() != load_reward("router", table=TABLE).fingerprint()


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match="table: is empty"):
        load_reward("router", table={})
    with pytest.raises(ConfigError, match=r"table\.a: 'vendi' judges sets"):
        load_reward("router", table={"a": {"name": "vendi", "encoder": {"name": "spectral"}}})
