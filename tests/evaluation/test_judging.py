"""RewardBench 2's rules by hand and by its notes, and evaluations of a scorer that reads its scores off the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmalign.core.errors import DataError
from mmalign.core.protocols import Inputs
from mmalign.core.types import Modality, Preference, Prompt, Status
from mmalign.data.lazy_media import LazyMedia
from mmalign.evaluation.evaluate import Share
from mmalign.evaluation.judging import judge, judge_shared
from mmalign.evaluation.rankings import auc, best_of_n, ties_score
from mmalign.evaluation.records import Evaluation
from mmalign.policies.scorer import Scorer
from tests.toys import ToyAdapter


class Numerals(ToyAdapter):
    """Answers are their own scores."""

    modality: Modality = "text"

    def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
        return [{"value": torch.tensor(float(output))} for output in outputs]

    def score(self, inputs: Sequence[Inputs]) -> Tensor:
        return torch.stack([row["value"] for row in inputs])


def row(text: str, chosen: Any, rejected: Any, **meta: Any) -> Prompt:
    return Prompt(text, meta={"chosen": chosen, "rejected": rejected, **meta})


def judged(*items: Any, rows: int = 3) -> Evaluation:
    return judge(Scorer(Numerals(nn.Identity())), items, rows=rows)


def test_best_of_four_as_published() -> None:
    table = {(1, 0, 0, 0): 1, (1, 1, 0, 0): 0.5, (1, 1, 1, 1): 0.25, (0, 1, 0, 0): 0}
    for (chosen, *rejected), want in table.items():
        assert best_of_n(chosen, rejected) == want


def test_pairs_count_ties_half() -> None:
    assert auc([2], [1]) == 1 and auc([1], [1]) == 0.5 and auc([0], [1]) == 0
    assert auc([2, 0], [1, 2]) == (1 + 0.5 + 0 + 0) / 4


def test_the_ties_rule_as_published() -> None:
    one = ties_score(([5], [1, 0]), ([4, 4.2, 3.9], [1, 0.5]))
    two = ties_score(([2], [1.5]), ([3, 1], [0.5, 0]))
    assert (one.score + two.score) / 2 == pytest.approx(0.801824, abs=1e-6)
    assert one[:4] == (1, 1, 1, 1) and two[:4] == (1, 1, 0, 0)
    blind = ties_score(([1], [1]), ([1, 1], [1]))
    assert blind.score == 0  # no spread and no gap
    assert ties_score(([2], [1]), ([2, 2], [1])).score == pytest.approx(1.01)  # no spread, a gap
    assert two.margin == pytest.approx(math.tanh(0.5 / 2 - 1))


ROWS = (
    row("2+2?", ["4"], ["1", "2", "3"], subset="Math"),
    row("3+3?", "6", ["6", "2", "3"], subset="Math"),
    row("be kind", "0", ["1", "2", "3"], subset="Safety"),
    row("a colour", ["5"], ["1", "0"], subset="Ties", id="ref:0"),
    row("any colour", ["4", "4.2", "3.9"], ["1", "0.5"], subset="Ties", id="tied:0"),
    row("a name", ["2"], ["1.5"], subset="Ties", id="ref:1"),
    row("any name", ["3", "1"], ["0.5", "0"], subset="Ties", id="tied:1"),
)


def test_a_benchmark_row_by_row(tmp_path: Path) -> None:
    found = judged(*ROWS)
    means = found.means()
    assert means["best_of_4"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert means["best_of_4/Math"] == 0.75 and means["best_of_4/Safety"] == 0
    assert means["ties"] == pytest.approx(0.801824, abs=1e-6)
    assert means["rewardbench2"] == pytest.approx((0.75 + 0 + 0.801824) / 3, abs=1e-6)
    assert means["accuracy"] == pytest.approx(np.mean([1, (0.5 + 2) / 3, 0, 1, 1, 1, 1]))
    assert means["accuracy/Math"] == pytest.approx((1 + 2.5 / 3) / 2)
    assert found.interval("best_of_4").n == 3 and found.interval("ties").n == 2
    low, high = found.interval("rewardbench2")[1:3]
    assert low < means["rewardbench2"] < high
    assert found.scores["ties"].status.tolist() == [Status.NOT_APPLICABLE] * 4 + [0, Status.NOT_APPLICABLE, 0]
    assert found.scores["accuracy"].parts["margin"][0] == 2
    assert found.outputs[:3] == ["4", "6", "3"]  # what it likes best
    found.save(tmp_path / "kept")
    again = Evaluation.load(tmp_path / "kept")
    assert again.means() == pytest.approx(means, nan_ok=True)
    assert again.prompts[1].meta["scores"] == {"chosen": [6.0], "rejected": [6.0, 2.0, 3.0]}
    assert judged(*ROWS, rows=100).means() == pytest.approx(means, nan_ok=True)


def test_a_constant_model_gets_what_guessing_gets() -> None:
    same = [row(str(i), "1", ["1", "1", "1"]) for i in range(8)]
    found = judged(*same).means()
    assert found["accuracy"] == 0.5 and found["best_of_4"] == 0.25
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_pairs_of_one_prompt_are_one_draw_of_the_bootstrap() -> None:
    pairs = [Preference(Prompt(f"p{i % 5}"), str(i % 5 % 2), "0.5") for i in range(100)]
    grouped, own = judged(*pairs), judged(*[Preference(Prompt(str(i)), p.chosen, "0.5") for i, p in enumerate(pairs)])
    wide, narrow = grouped.interval("accuracy"), own.interval("accuracy")
    assert wide.value == narrow.value == pytest.approx(0.4)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_question_about_many_pictures_is_many_draws(tmp_path: Path) -> None:
    def about(i: int) -> LazyMedia:
        return LazyMedia({"image": f"{i % 5}.png"}, tmp_path, f"row {i}")

    found = judged(*[Preference(Prompt("what is it?", about(i)), str(i % 2), "0.5") for i in range(20)])
    assert found.group.tolist() == [i % 5 for i in range(20)]  # and rows about one file are one draw
    assert found.interval("accuracy").high < math.inf


def test_a_score_that_is_no_number_is_an_error_and_not_a_loss() -> None:
    found = judged(row("a", "2", "1"), row("b", "nan", "1"), row("c", "3", "4"))
    assert found.scores["accuracy"].status.tolist() == [0, Status.ERROR, 0]
    assert found.means()["accuracy"] == 0.5 and found.invalid("accuracy") == 1


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no comparisons to judge; set data.held_out"),
        ([Prompt("a", meta={"chosen": "1"})], r"row 0 \('a'\): 'rejected' is 'None'; expected a text or a list"),
        ([row("a", [], "1")], r"row 0 \('a'\): 'chosen' is '\[\]'"),
        ([row("a", "1", "2", subset="Ties", id="ref:3")], "id 3 needs both 'ref:3' and 'tied:3'"),
        ([row("a", "1", "2", subset="Ties")], r"row 0 \('a'\): id is None; rows of subset Ties are called 'ref:…'"),
    ],
)
def test_rows_that_cannot_be_judged_are_named(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        judged(*items)


def test_pictures_of_several_sizes_are_judged_one_by_one() -> None:
    class Bright(Numerals):
        modality: Modality = "image"

        def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
            return [{"value": picture.mean()} for picture in outputs]

    pairs = [Preference(Prompt("light"), torch.full((3, 4 + i, 4), 0.9), torch.full((3, 4, 4), 0.1)) for i in range(3)]
    found = judge(Scorer(Bright(nn.Identity())), pairs)
    assert found.means()["accuracy"] == 1.0 and found.modality == "image" and len(found.outputs) == 0
    assert judge(Scorer(Bright(nn.Identity())), pairs[:1]).outputs.shape == (1, 3, 4, 4)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_share_the_calls_and_find_what_one_does(processes: int) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    class Counting(Numerals):
        def __init__(self) -> None:
            super().__init__(nn.Identity())
            self.calls: list[int] = []

        def score(self, inputs: Any) -> Tensor:
            self.calls.append(len(inputs))
            return super().score(inputs)

    models, parts, together = [Counting() for _ in range(processes)], {}, Barrier(processes)

    def measured(rank: int) -> Evaluation | None:
        def gather(value: Any) -> list[Any]:
            parts[rank] = value
            together.wait(60)
            return [parts[each] for each in range(processes)]

        return judge_shared(Scorer(models[rank]), ROWS, Share(rank, processes, gather), rows=3)

    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(measured, range(processes)))
    alone = judge(Scorer(one := Counting()), ROWS, rows=3)
    assert found[0] is not None and found[1:] == [None] * (processes - 1)
    assert found[0].means() == alone.means() and found[0].outputs == alone.outputs
    assert all(np.array_equal(found[0].values(n), alone.values(n), equal_nan=True) for n in alone.scores)
    dealt = [model.calls for model in models]
    assert dealt == [one.calls[rank::processes] for rank in range(processes)] and all(dealt)


class Agreement(Numerals):
    """How near the number of an answer is to that of its prompt; nothing where the answer is "?"."""

    def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
        near = [
            math.nan if output == "?" else -abs(float(prompt.text) - float(output))
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
        return [{"value": torch.tensor(value)} for value in near]


def test_near_prompts_samples_and_contexts_by_hand() -> None:
    """C_ins keeps the answer and changes the prompt; C_res the other way round; samples count whole."""
    rows = [
        row("5", "5", ["6", "9"], near=["6", {"prompt": "5", "meta": {"a": 1}}], sample="a", subset="x"),
        row("5", "6", "5", sample="a", subset="x"),  # the scorer prefers the wrong one
        row("1", "1", "2", sample="b", reversal="r", subset="y"),
        row("2", "2", "1", reversal="r", subset="y"),
        row("1", "?", "2", sample="c", reversal="s", subset="y"),
    ]
    found = judge(Scorer(Agreement(nn.Linear(1, 1))), rows, rows=3)
    means = found.means()
    assert means["c_ins"] == 0.75 and means["c_res"] == 1.0  # of the near prompts one wins, one ties
    assert found.scores["acc_plus"].status.tolist() == [0, 1, 0, 1, Status.ERROR]
    assert means["acc_plus"] == 0.5 and means["reversal"] == 1.0
    assert means["mrr"] == means["ndcg"] == 1.0 and found.interval("mrr").n == 1
    assert means["macro"] == pytest.approx((0.5 + 1) / 2)
    assert found.prompts[0].meta["scores"]["near"] == [-1.0, 0.0]
    low, high = found.interval("macro")[1:3]
    assert low <= 0.75 <= high
