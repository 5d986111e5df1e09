"""Rows of instructions: what is held out is nowhere trained on, and the lesson's answers follow what they answer."""

import numpy as np
import pytest

from mmalign.core.config import load
from mmalign.rewards.text._instructions import followed, read_instructions
from pipelines.real import instruction_rows
from pipelines.real.instruction_answers import answer
from pipelines.real.instruction_rows import HELD_OUT, TRAINED, pairs, rows
from pipelines.real.instructions import LESSON, RUN, prepared


def test_no_pair_of_kinds_and_no_value_is_of_both_sides() -> None:
    trained, held_out = rows(600, held_out=False, seed=0), rows(96, held_out=True, seed=0)
    assert {row["kinds"] for row in trained} & {row["kinds"] for row in held_out} == {"sum"}
    assert not {row["prompt"] for row in trained} & {row["prompt"] for row in held_out}
    for name in ("topics", "words", "openings", "endings", "keys", "sums"):
        assert not set(getattr(TRAINED, name)) & set(getattr(HELD_OUT, name)), name


def test_every_kind_that_is_held_out_in_a_pair_is_trained_in_another() -> None:
    assert {kind for pair in pairs(spared=True) for kind in pair} <= {k for pair in pairs(spared=False) for k in pair}
    assert len(pairs(spared=True)) == len(instruction_rows.SPARED)


@pytest.mark.parametrize("held_out", [False, True])
def test_answers_by_rule_follow_every_instruction(held_out: bool) -> None:
    draw = np.random.default_rng(0)
    for row in rows(200, held_out, seed=3):
        checks, sentences = read_instructions(row["instructions"], "instructions")
        assert not sentences and all(followed(answer(row, draw), checks))


def test_the_run_files_are_such_and_rows_repeat(tmp_path) -> None:
    assert load(RUN, []).trainer.steps and load(LESSON, []).trainer.steps
    first = {path.name: path.read_bytes() for path in prepared(tmp_path / "a").iterdir()}
    assert first == {path.name: path.read_bytes() for path in prepared(tmp_path / "b").iterdir()}
    assert set(first) == {"lesson.jsonl", "train.jsonl", "held_out.jsonl"}
