"""Thousands of odd rows through every reward of texts: a status each, never an exception, never seconds."""

import random
import time
from typing import Any

import pytest

from mmalign.core.types import Status
from mmalign.rewards import Guarded, load_reward, rewards
from mmalign.rewards.engine.traits import data_check
from tests.rewards.asking import rollout_of

ROWS = 250  # for each reward; 2,000 pass too
SECONDS = 3.0  # for one row, of processor time
REWARDS: dict[str, dict[str, Any]] = {
    "exact_match": {}, "multiple_choice": {"count_from": 0}, "relaxed_accuracy": {"find": "last"}, "format": {},
    "format json": {"kind": "json", "keys": ("a",)}, "format regex": {"kind": "regex",
    "pattern": ".*a.*"}, "iou": {"labels": True},
    "iou seen": {"frame": "per_mille", "seen_size": "seen", "invalid": "miss"}, "tool_call": {}, "bleu": {}, "chrf": {},
    "instruction_adherence": {}, "length": {"low": 5.0}, "repetition": {}, "cosine_length": {"unit": "words"},
    "group_length": {}, "overlong": {"unit": "characters"}, "math_equal": {"seconds": 1.0},
    "hybrid": {"rule": {"name": "exact_match"}, "model": {"name": "length", "low": 5.0}},
}  # fmt: skip
PIECES = [
    "5", "-5", "−5", "1,000", "½", "2⁵", "①", "٣", "9" * 5000, "1e999", "\\frac{1}{2}", "\\boxed{",
    "}", "{", "\\fbox{5}", "$", "**",
    "<answer>", "</answer>", "<think>", "</think>", "<tool_call>", "</tool_call>", "\n",
    '{"name": "f", "arguments": {"x": 1}}',
    "[1, 2, 3, 4]", '[{"bbox_2d": [1, 2, 3, 4]}]', "<loc0001>", "<loc_1>", "<box>", "(B)", "选B", "A",
    "yes", "nan", "inf", "\x00",
    "\ud800", "\u202e", "e\u0301" * 50, "[" * 200, "{" * 200, '"', "\\", "#### 5", "```json", "```",
    "%", "€", "a" * 400, "🏳️‍🌈", "",
    " ", "\u200b", "true", "null", "1/0", "0x10", "A or B", "<response>", "</response>", "^", "\\sqrt{", "x=",
]  # fmt: skip


def text(rng):
    return rng.choice(["", " ", "\n"]).join(rng.choice(PIECES) for _ in range(rng.randint(0, 8)))


def value(rng, depth=0):
    """What a table may hold."""
    kinds = [
        None,
        True,
        0,
        3,
        -1,
        10**30,
        5.0,
        0.5,
        float("nan"),
        float("inf"),
        10**4400,
        "B",
        "5",
        "1/2",
        "",
        b"raw",
        "[1, 2, 3, 4]",
    ]
    kinds += [
        [0, 0, 2, 2],
        [[0, 0, 2, 2], [1, 1, 5, 5]],
        [640, 480],
        ["a cat", "a dog"],
        {"max_words": 5.0},
        {"json": True},
        [{}],
        {},
    ]
    kinds += [
        [{"name": "f", "parameters": {"x": 1}}],
        '[{"name": "f", "arguments": {}}]',
        {"text": ["a"], "label": ["1"]},
        [],
    ]
    if depth < 2 and rng.random() < 0.3:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return text(rng) if rng.random() < 0.4 else rng.choice(kinds)


GOOD = {
    "answer": "5",
    "choices": ["5", "6"],
    "boxes": [[0, 0, 2, 2]],
    "size": [640, 480],
    "seen": [64, 48],
    "instructions": {},
}
GOOD |= {"ground_truth": [{"name": "f", "parameters": {"x": 1}}], "references": ["a cat"]}


@pytest.mark.parametrize("name", REWARDS)
def test_odd_rows_have_a_status_and_no_row_takes_long(name):
    rng = random.Random(f"odd {name}")
    reward = rewards.build({"name": name.partition(" ")[0], **REWARDS[name]}, name)
    guarded = Guarded(name, reward, failed_share=1.0, monitor=True)
    counts = dict.fromkeys(Status, 0)
    for _ in range(ROWS):
        meta = {column: good if rng.random() < 0.5 else value(rng) for column, good in GOOD.items()}
        row = rollout_of((text(rng), meta))
        try:
            data_check(reward)(row.prompts[0])
            readable = True
        except (ValueError, TypeError, KeyError, OverflowError) as why:
            readable = False
            assert 0 < len(str(why)) < 1_000
        start = time.process_time()
        scores = guarded(row)
        assert time.process_time() - start < SECONDS, row
        status = Status(int(scores.status[0]))
        counts[status] += 1
        assert scores.info is None or len(scores.info[0]) < 2_000
        # What the columns alone show to be unreadable is told before training, and only that.
        if readable and hasattr(reward, "check_data") and name != "hybrid":
            assert status is not Status.ERROR, (row.output, meta, scores.info)
        assert status in (Status.OK, Status.PARSE_FAIL) or scores.value.isnan().all()
    assert counts[Status.OK] + counts[Status.PARSE_FAIL] > 0


def test_one_bad_row_does_not_change_its_neighbours():
    rng = random.Random(7)
    good = ("5", {"answer": "5"})
    rows = [good if n % 2 else (text(rng), {"answer": value(rng)}) for n in range(60)]
    scores = Guarded("a", load_reward("exact_match"), failed_share=1.0)(rollout_of(*rows))
    assert scores.value[1::2].eq(1).all() and scores.status[1::2].eq(0).all()
