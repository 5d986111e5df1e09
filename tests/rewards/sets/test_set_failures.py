"""A set reward that fails is a sentence that names it and its rows: in a run, in an evaluation, in `mmalign score`."""

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from mmalign.core.errors import ConfigError, ScoreError
from mmalign.core.protocols import SetReward
from mmalign.core.types import Modality, Status
from mmalign.evaluation import evaluate as evaluation
from mmalign.objectives._selection import EmbeddedOutputs, set_rewards
from mmalign.rewards import Credit, Guarded, Mix, Slot
from mmalign.rewards.engine.sets import Embedded, embed_rows
from mmalign.run.rows import read_output_rows
from mmalign.run.score import failed, score_rows
from tests.rewards.doubles import answers
from tests.rewards.every_reward import SETS, judged

TEXTS = ("1", "2", "x", "4", "5", "7")


@dataclass
class Spread:
    """The variance of texts that are numbers; raises on what is none."""

    fault: str = ""
    modalities: ClassVar[frozenset[Modality]] = frozenset({"text"})
    differentiable = False

    def embed(self, rollout):
        if self.fault == "setup":
            raise ConfigError("checkpoint: nowhere")
        if self.fault == "shape":
            return torch.zeros(3)
        if self.fault == "width" and len(rollout) == 1:
            return torch.zeros(1, 5)
        return torch.tensor([[float(text), float(text) ** 2] for text in rollout.output])

    def score(self, embedding):
        if self.fault == "score":
            raise RuntimeError("the matrix is singular")
        return embedding[:, 0].var(correction=0)

    def credit(self, embedding):
        share = (embedding[:, 0] - embedding[:, 0].mean()) ** 2
        return share - share.mean()


GOOD = answers("1", "2", "4", "5", "7")
SOME, NONE = answers(*TEXTS), answers("a", "b", "c")


def test_a_row_that_cannot_be_embedded_leaves_the_set():
    embedded = embed_rows("spread", Spread(), SOME)
    assert embedded.rows.isfinite().all(1).tolist() == [True, True, False, True, True, True]
    assert list(embedded.why) == [2] and "could not convert string to float: 'x'" in embedded.why[2]
    scores = Credit(Spread())(SOME)
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.allclose(scores.value[others], Spread().credit(Spread().embed(GOOD)))
    assert scores.status[2] == Status.ERROR and scores.info[2] == embedded.why[2]


def test_where_none_can_be_embedded_the_reward_is_named():
    with pytest.raises(
        ScoreError, match=r"reward 'spread' could embed none of 3 rows; the first, row 0: ValueError: c"
    ):
        embed_rows("spread", Spread(), NONE).required("spread")
    with pytest.raises(ScoreError, match="reward 'Spread' could embed none of 3 rows"):
        Credit(Spread()).embed(NONE)


def test_what_is_no_embedding_is_refused():
    with pytest.raises(
        ScoreError, match=r"reward 's' embedded 6 rows as torch.float32 \(3,\); a tensor \(6, D\) of fl"
    ):
        embed_rows("s", Spread("shape"), SOME)
    with pytest.raises(ScoreError, match="reward 's' embedded rows as 2 numbers and others as 5; a set has one width"):
        embed_rows("s", Spread("width"), SOME)


@pytest.mark.parametrize("fault", ["setup", ""])
def test_a_fault_of_the_set_up_is_itself(fault):
    if fault:
        with pytest.raises(ConfigError, match="checkpoint: nowhere"):
            embed_rows("s", Spread(fault), SOME)
    else:
        assert isinstance(Credit(Spread()), SetReward)


def test_training_counts_rows_and_stops_where_all_fail():
    mix = Mix({"spread": Slot(Spread())})
    scores = mix(SOME)
    assert scores.status[2] == Status.ERROR and "could not convert" in scores.info[2]
    assert mix.metrics()["reward/spread/error"] == pytest.approx(1 / 6)
    with pytest.raises(ScoreError, match=r"reward 'spread' failed on .* rows .* could not convert string to float"):
        for _ in range(4):
            mix(NONE)


def test_sets_that_are_re_scored_count_them_too():
    mix = Mix({"spread": Slot(Spread())})
    pool = EmbeddedOutputs.of(set_rewards(mix), SOME)
    assert pool.finite.tolist() == [True, True, False, True, True, True]
    assert mix.metrics()["reward/spread/error"] == pytest.approx(1 / 6)
    with pytest.raises(ScoreError, match="reward 'spread' could embed none of 3 rows"):
        EmbeddedOutputs.of(set_rewards(mix), NONE)
    broken = EmbeddedOutputs.of(set_rewards(Mix({"spread": Slot(Spread("score"))})), GOOD)
    with pytest.raises(
        ScoreError, match=r"reward 'spread' cannot score a set of 5 rows: RuntimeError: the matrix is s"
    ):
        broken.value(torch.arange(5))


class Writer:
    """A policy that says given texts."""

    modality: Modality = "text"

    def __init__(self, texts):
        self.texts, self.module = texts, torch.nn.Identity()

    def reference(self):
        return nullcontext()

    def sample(self, prompts, rng):
        raise AssertionError("an evaluation never samples as training does")

    def generate(self, prompts, rng):
        return answers(*[self.texts[int(prompt.text)] for prompt in prompts])


def prompts(n):
    from mmalign.core.types import Prompt

    return [Prompt(str(i)) for i in range(n)]


def test_an_evaluation_leaves_rows_out_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, "mmalign"):
        of_set = evaluation.evaluate_policy(Writer(TEXTS), prompts(6), {"spread": Spread()}, seed=0, rows=2).sets[
            "spread"
        ]
    assert (of_set.n, of_set.invalid) == (5, 1)
    assert of_set.value == pytest.approx(float(Spread().score(Spread().embed(GOOD))))
    assert "reward 'spread' could not embed 1 of 6 rows; the first, row 2: ValueError" in caplog.text
    with pytest.raises(ScoreError, match="reward 'spread' could embed none of 3 rows"):
        evaluation.evaluate_policy(Writer("abc"), prompts(3), {"spread": Spread()}, seed=0, rows=2)
    with pytest.raises(ScoreError, match="reward 'spread' cannot score a set of"):
        evaluation.evaluate_policy(Writer("124"), prompts(3), {"spread": Spread("score")}, seed=0)


def rows_of(folder, texts):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": "q", "output": text}) + "\n" for text in texts))
    return read_output_rows(file)


def test_score_names_the_rows_and_counts_them(tmp_path):
    (line,) = score_rows(rows_of(tmp_path, TEXTS), Spread(), tmp_path, name="spread")
    assert line["n"] == 5 and line["failed"] == 1 and line["credit"][2] is None
    assert line["info"].startswith("1 of 6 outputs have no embedding; the first: ")
    assert "rows.jsonl:3: cannot be embedded: ValueError: could not convert string to float: 'x'" in line["info"]
    assert failed([line]).startswith("1 of 6 rows are not in the set: 1 of 6 outputs have no embedding")
    with pytest.raises(
        ScoreError, match=r"reward 'spread' could embed none of 3 rows; the first: .*rows\.jsonl:1: can"
    ):
        score_rows(rows_of(tmp_path, "abc"), Spread(), tmp_path, name="spread")
    with pytest.raises(ScoreError, match="reward 'spread' cannot score a set of 3 rows: RuntimeError: the matrix"):
        score_rows(rows_of(tmp_path, "124"), Spread("score"), tmp_path, name="spread")


@pytest.mark.parametrize("name", SETS)
def test_every_set_reward_leaves_out_what_its_encoder_raises_on(name, make, monkeypatch):
    """One contract for all: one row of six at fault is one row, all at fault is the reward's."""
    reward = make(name)
    rollout = judged(reward)
    rollout.prompts = [replace(prompt, meta={**prompt.meta, "at": row}) for row, prompt in enumerate(rollout.prompts)]
    whole, own, at = reward.embed(rollout), type(reward).embed, [1]

    def embed(self, part, broken=(1,)):
        if any(prompt.meta["at"] in broken for prompt in part.prompts):
            raise RuntimeError("no features")
        return own(self, part)

    monkeypatch.setattr(type(reward), "embed", embed)
    embedded = embed_rows(name, reward, rollout)
    others = [0, 2, 3, 4, 5]
    assert list(embedded.why) == at and torch.allclose(embedded.rows[others], whole[others], atol=1e-5)
    scores = Guarded(name, reward, failed_share=1.0)(rollout)
    assert [scores.status[row] == Status.ERROR for row in range(6)] == [row in at for row in range(6)]
    monkeypatch.setattr(type(reward), "embed", lambda self, part: embed(self, part, range(6)))
    with pytest.raises(ScoreError, match=f"reward '{name}' could embed none of 6 rows; the first, row 0: RuntimeErr"):
        embed_rows(name, reward, rollout).required(name)


def test_joined_and_cut_embeddings_keep_each_row_with_its_reason():
    whole = Embedded(torch.tensor([[1.0, 2.0], [3.0, float("inf")], [5.0, 6.0]]), places=["a:1", "a:2", "a:3"])
    failed = Embedded.failed(1, "ValueError: c")
    failed.places = ["a:4"]
    joined = Embedded.joined("spread", [failed, whole])
    assert joined.reasons() == ["ValueError: c", "", "the embedding is not finite", ""]
    assert joined.finite.tolist() == [False, True, False, True] and not joined.is_empty
    assert joined.first() == "the first, a:4: ValueError: c"
    for row in range(4):
        one = joined[row : row + 1]
        assert torch.equal(one.rows.nan_to_num(), joined.rows[row : row + 1].nan_to_num())
        assert one.reasons() == joined.reasons()[row : row + 1] and one.places == joined.places[row : row + 1]
    assert joined[:1].is_empty and joined[1:].why == {}
