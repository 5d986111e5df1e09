"""Rows slice and join everything they carry; experiences split without loss."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmalign.core.experience import Pairs, Transitions
from mmalign.core.types import Prompt, Rollout, Scores, Status, StepDist, join


def rollout(rows: int, steps: int = 3) -> Rollout:
    return Rollout(
        prompts=[Prompt(text=str(i)) for i in range(rows)],
        output=[f"out {i}" for i in range(rows)],
        group=torch.arange(rows) // 2,
        trajectory={"x": torch.arange(rows * 2.0).reshape(rows, 2)},
        step_logp=torch.randn(rows, steps),
        mask=torch.ones(rows, steps, dtype=torch.bool),
    )


def test_a_slice_cuts_every_field_and_join_undoes_it() -> None:
    whole = rollout(6)
    parts = [whole[:1], whole[1:4], whole[4:]]
    again = join(parts)
    assert [p.text for p in again.prompts] == [p.text for p in whole.prompts]
    assert again.output == whole.output
    assert torch.equal(again.trajectory["x"], whole.trajectory["x"])
    assert torch.equal(again.step_logp, whole.step_logp)
    assert len(parts[1]) == 3


def test_indexing_with_a_tensor_reorders_lists_too() -> None:
    picked = rollout(4)[torch.tensor([3, 0])]
    assert picked.output == ["out 3", "out 0"]
    assert torch.equal(picked.group, torch.tensor([1, 0]))


def transitions(rows: int, steps: int, shared: bool) -> Transitions:
    dist = StepDist(log_prob=torch.randn(rows, steps), mean=torch.randn(rows, steps, 2), std=torch.rand(rows, steps))
    return Transitions(
        rollout=rollout(rows, steps),
        advantage=torch.randn(rows, 1 if shared else steps),
        mask=torch.ones(rows, steps, dtype=torch.bool),
        old=dist,
        weight=torch.rand(rows, steps),
    )


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 8), st.integers(1, 6), st.booleans())
def test_chunks_cover_every_entry_once(rows: int, steps: int, by_rows: int, by_steps: int, shared: bool) -> None:
    whole = transitions(rows, steps, shared)
    seen = torch.zeros(rows, steps)
    order = {prompt.text: i for i, prompt in enumerate(whole.rollout.prompts)}
    lasts = []
    for chunk, last in whole.chunks(by_rows, by_steps):
        index = [order[p.text] for p in chunk.rollout.prompts]
        seen[index, chunk.steps] += 1
        assert torch.equal(chunk.weight, whole.weight[index, chunk.steps])
        assert torch.equal(chunk.old.mean, whole.old.mean[index, chunk.steps])
        assert chunk.advantage.shape == (len(chunk), 1 if shared else chunk.mask.shape[1])
        lasts.append(last)
    assert torch.equal(seen, torch.ones(rows, steps))
    assert lasts == [False] * (len(lasts) - 1) + [True]


@given(st.integers(1, 9), st.integers(1, 4))
def test_minibatches_partition_the_rows(rows: int, count: int) -> None:
    whole = Pairs(chosen=rollout(rows), rejected=rollout(rows), mask=torch.ones(rows, dtype=torch.bool))
    parts = list(whole.minibatches(count, torch.Generator().manual_seed(3)))
    texts = sorted(p.text for part in parts for p in part.chosen.prompts)
    assert texts == sorted(str(i) for i in range(rows))


def test_only_ok_and_the_policys_own_failure_enter_statistics() -> None:
    scores = Scores(value=torch.zeros(5), status=torch.tensor([s.value for s in Status], dtype=torch.int8))
    assert scores.valid.tolist() == [s in (Status.OK, Status.PARSE_FAIL) for s in Status]
    assert Scores.of(torch.ones(3)).valid.all()
    assert Status.PARSE_FAIL.label == "parse_fail"


def test_replace_keeps_the_class() -> None:
    assert isinstance(replace(rollout(2), output=["a", "b"]), Rollout)


@given(st.integers(1, 12), st.integers(1, 15))
def test_minibatches_are_as_many_as_asked_and_nearly_equal(rows: int, count: int) -> None:
    whole = transitions(rows, 2, shared=True)
    parts = list(whole.minibatches(count, torch.Generator()))
    sizes = [len(part) for part in parts]
    assert len(sizes) == min(count, rows) and sum(sizes) == rows and max(sizes) - min(sizes) <= 1
