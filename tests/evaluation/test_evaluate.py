"""Evaluation shares noise between policies, counts what has no score, and survives its folder."""

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmalign.core.errors import CapabilityError, ConfigError, DataError, MediaError, ScoreError
from mmalign.core.rng import Noise
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores, Status
from mmalign.evaluation.evaluate import Share, evaluate_policy, evaluate_shared
from mmalign.evaluation.records import Evaluation, RowScores
from tests.toys import prompts

SIZE = 6


def uniform(rng: Noise, *shape: int) -> torch.Tensor:
    """Of each row its own."""
    assert not isinstance(rng, torch.Generator)
    return torch.stack([torch.rand(*shape, generator=one) for one in rng])


class Painter:
    """Uniform pictures: noise plus a trainable shade; a dropout layer tells whether evaluation mode was on."""

    modality: Modality = "image"

    def __init__(self, shade: float = 0.0) -> None:
        self.module = nn.ModuleDict({"free": nn.Dropout(0.5), "frozen": nn.Dropout(0.5).eval()})
        self.shade = shade
        self.seen: list[tuple[int, bool]] = []

    def reference(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sample(self, prompts: Sequence[Prompt], rng: torch.Generator) -> Rollout:
        raise AssertionError("an evaluation never samples as training does")

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        assert not torch.is_grad_enabled()
        self.seen.append((len(prompts), self.module["free"].training))
        noise = uniform(rng, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
        return Rollout(list(prompts), (0.5 * noise + self.shade).clamp(0, 1), torch.arange(len(prompts)))


class Speaker(Painter):
    modality: Modality = "text"

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        return Rollout(list(prompts), [p.text.upper() for p in prompts], torch.arange(len(prompts)))


class Singer(Painter):
    modality: Modality = "audio"

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        length = 10 * len(prompts)
        samples = uniform(rng, 1, length) - 0.5
        mask = torch.arange(length)[None] < torch.arange(1, len(prompts) + 1)[:, None] * 10
        return Rollout(list(prompts), Audio(samples * mask[:, None], 8_000, mask), torch.arange(len(prompts)))


class Brightness:
    modalities: frozenset[Modality] = frozenset({"image"})
    range = (0.0, 1.0)
    differentiable = True

    def __call__(self, rollout: Rollout) -> Scores:
        mean = rollout.output.flatten(1).mean(1)
        return Scores.of(mean, parts={"red": rollout.output[:, 0].flatten(1).mean(1)})


class Fussy(Brightness):
    """Fails on prompts of even length, parses none of length 3."""

    def __call__(self, rollout: Rollout) -> Scores:
        scores = super().__call__(rollout)
        lengths = torch.tensor([len(p.text) for p in rollout.prompts])
        scores.status[lengths % 2 == 0] = Status.ERROR
        scores.status[lengths == 3] = Status.PARSE_FAIL
        scores.value[lengths % 2 == 0] = torch.nan
        scores.value[lengths == 3] = 0.0
        return scores


class Length(Brightness):
    modalities: frozenset[Modality] = frozenset({"text", "audio"})

    def __call__(self, rollout: Rollout) -> Scores:
        return Scores.of(torch.tensor([float(len(p.text)) for p in rollout.prompts]))


class Spread:
    """A set reward: the standard deviation of brightness."""

    modalities: frozenset[Modality] = frozenset({"image"})
    differentiable = True

    def embed(self, rollout: Rollout) -> torch.Tensor:
        return rollout.output.flatten(1).mean(1, keepdim=True)

    def score(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding.std()

    def credit(self, embedding: torch.Tensor) -> torch.Tensor:
        return embedding[:, 0]


REWARDS: dict[str, Any] = {"bright": Brightness(), "fussy": Fussy(), "spread": Spread()}


def test_before_and_after_share_noise_whatever_the_weights() -> None:
    before = evaluate_policy(Painter(0.0), prompts(7), REWARDS, seed=3, rows=3)
    after = evaluate_policy(Painter(0.25), prompts(7), REWARDS, seed=3, rows=3)
    gap = after.scores["bright"].value - before.scores["bright"].value
    np.testing.assert_allclose(gap, 0.25, rtol=1e-6)
    other = evaluate_policy(Painter(0.0), prompts(7), REWARDS, seed=4, rows=3)
    assert (other.scores["bright"].value != before.scores["bright"].value).all()
    assert len(np.unique(before.scores["bright"].value)) == 7, "chunks repeat each other's noise"
    np.testing.assert_allclose(before.sets["spread"].resampled, after.sets["spread"].resampled, rtol=1e-4)


def test_noise_is_an_output_s_own_whatever_the_chunks(tmp_path: Path) -> None:
    whole = evaluate_policy(Painter(), prompts(9), REWARDS, seed=3, rows=64)
    for rows in (1, 2, 4):
        cut = evaluate_policy(Painter(), prompts(9), REWARDS, seed=3, rows=rows)
        assert np.array_equal(cut.outputs, whole.outputs)
        assert all(np.array_equal(cut.values(n), whole.values(n), equal_nan=True) for n in whole.scores)
        assert cut.means() == whole.means()
    pairs = [evaluate_policy(Painter(), prompts(5), REWARDS, seed=3, rows=rows, repeats=2) for rows in (2, 64)]
    assert np.array_equal(pairs[0].outputs, pairs[1].outputs)


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_several_processes_find_what_one_finds(processes: int) -> None:
    """Each in its turn; the last, which has everybody's part by then, stands in for the first."""
    alone = evaluate_policy(Painter(), prompts(9), REWARDS, seed=3, rows=2, keep=5)
    parts: list[Any] = []

    def gather(mine: Any) -> list[Any]:
        parts.append(mine)
        return list(parts)

    for rank in [*range(1, processes), 0]:
        share = Share(rank, processes, gather)
        found = evaluate_shared(Painter(), prompts(9), REWARDS, share, seed=3, rows=2, keep=5)
        assert (found is None) == bool(rank)
    assert found is not None and found.means() == alone.means()
    assert np.array_equal(found.outputs, alone.outputs)
    assert all(np.array_equal(found.values(n), alone.values(n), equal_nan=True) for n in alone.scores)
    assert all(np.array_equal(found.sets[n].resampled, alone.sets[n].resampled) for n in alone.sets)


def test_repeats_stay_together_and_are_grouped() -> None:
    policy, seen = Painter(), []
    found = evaluate_policy(
        policy, prompts(5), REWARDS, seed=0, rows=7, repeats=3, progress=lambda *done: seen.append(done)
    )
    assert [n for n, _ in policy.seen] == [6, 6, 3]
    assert found.group.tolist() == [i for i in range(5) for _ in range(3)]
    assert [len(p.text) for p in found.prompts] == [i + 1 for i in range(5) for _ in range(3)]
    assert seen == [(6, 15), (12, 15), (15, 15)]
    assert found.outputs.dtype == np.uint8 and len(found.outputs) == 15


def test_module_modes_are_restored_even_after_a_failure() -> None:
    policy = Painter()
    evaluate_policy(policy, prompts(2), REWARDS, seed=0)
    assert policy.seen == [(2, False)]
    assert policy.module["free"].training and not policy.module["frozen"].training

    class Broken(Brightness):
        def __call__(self, rollout: Rollout) -> Scores:
            raise RuntimeError("model fell over")

    with pytest.raises(RuntimeError, match="model fell over") as caught:
        evaluate_policy(policy, prompts(4), {"broken": Broken()}, seed=0, rows=2)
    assert caught.value.__notes__ == ["while reward 'broken' judged prompts 0 to 1"]
    assert policy.module["free"].training


def test_rows_without_a_score_are_missing_not_zero() -> None:
    found = evaluate_policy(Painter(0.5), prompts(6), REWARDS, seed=0, rows=4)
    values = found.values("fussy")
    assert [bool(v != v) for v in values] == [False, True, False, True, False, True]
    assert values[2] == 0 and found.invalid("fussy") == 3 and found.interval("fussy").n == 3
    assert found.means()["fussy"] == pytest.approx((values[0] + values[4]) / 3)
    assert found.means()["spread"] == found.sets["spread"].value


def test_set_reward_equals_scoring_the_whole_at_once() -> None:
    found = evaluate_policy(Painter(), prompts(9), REWARDS, seed=0, rows=2)
    whole = found.scores["bright"].value
    assert found.sets["spread"].value == pytest.approx(whole.std(ddof=1))
    interval = found.interval("spread")
    assert interval.low < interval.value < interval.high and interval.n == 9


class Gaps(Spread):
    """Cannot embed what prompts of length 3 ask for."""

    def embed(self, rollout: Rollout) -> torch.Tensor:
        lost = torch.tensor([len(p.text) == 3 for p in rollout.prompts])
        return super().embed(rollout).masked_fill(lost[:, None], torch.nan)


def test_rows_that_no_set_reward_can_embed_leave_the_set(tmp_path: Path) -> None:
    found = evaluate_policy(Painter(), prompts(9), {"gaps": Gaps(), **REWARDS}, seed=0, rows=2)
    kept = np.delete(found.scores["bright"].value, 2)
    assert found.sets["gaps"].value == pytest.approx(kept.std(ddof=1))
    assert found.invalid("gaps") == 1 and found.invalid("spread") == 0 and found.interval("gaps").n == 8
    found.save(tmp_path / "kept")
    assert Evaluation.load(tmp_path / "kept").invalid("gaps") == 1
    alone = evaluate_policy(Painter(), [Prompt("abc")] * 2, {"gaps": Gaps()}, seed=0, rows=2)
    assert math.isnan(alone.sets["gaps"].value) and alone.invalid("gaps") == 2


@pytest.mark.parametrize("policy", [Painter(0.1), Speaker(), Singer()])
def test_folder_round_trip(policy: Any, tmp_path: Path) -> None:
    rewards = REWARDS if policy.modality == "image" else {"length": Length()}
    asked = [Prompt(p.text, meta={"count": i, "odd": {1, 2}}) for i, p in enumerate(prompts(5))]
    found = evaluate_policy(policy, asked, rewards, seed=1, rows=3, keep=4)
    found.save(tmp_path / "after")
    read = Evaluation.load(tmp_path / "after")
    assert [p.text for p in read.prompts] == [p.text for p in asked]
    assert read.prompts[3].meta == {"count": 3, "odd": "{1, 2}"}
    assert (read.seed, read.rows, read.repeats, read.modality) == (1, 3, 1, policy.modality)
    for name in found.scores:
        np.testing.assert_array_equal(read.scores[name].value, found.scores[name].value)
        assert read.scores[name].status.tolist() == found.scores[name].status.tolist()
        assert read.scores[name].parts.keys() == found.scores[name].parts.keys()
    for name in found.sets:
        np.testing.assert_array_equal(read.sets[name].resampled, found.sets[name].resampled)
    if policy.modality == "image":
        assert np.array_equal(read.outputs, found.outputs) and len(read.outputs) == 4
    elif policy.modality == "text":
        assert read.outputs == found.outputs == [p.text.upper() for p in asked]
    else:
        assert torch.equal(read.outputs.mask, found.outputs.mask)
        torch.testing.assert_close(read.outputs.samples, found.outputs.samples, rtol=0, atol=1 / 32000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after"]


def test_golden_row(tmp_path: Path) -> None:
    scores = Scores(
        torch.tensor([0.5, torch.nan]), torch.tensor([0, 3], dtype=torch.int8), parts={"red": torch.tensor([0.25, 1.0])}
    )
    pictures, kept = np.zeros((1, 3, 2, 2), dtype=np.uint8), {"r": RowScores.of(scores)}
    found = Evaluation("image", [Prompt("a"), Prompt("ä")], np.array([0, 1]), kept, {}, pictures, 0, 64, 1)
    found.save(tmp_path / "e")
    assert (tmp_path / "e" / "rows.jsonl").read_text() == (
        '{"prompt": "a", "group": 0, "meta": {}, "output": "outputs/0000.png", '
        '"scores": {"r": {"value": 0.5, "status": "ok", "parts": {"red": 0.25}}}}\n'
        '{"prompt": "ä", "group": 1, "meta": {}, "output": null, '
        '"scores": {"r": {"value": null, "status": "error", "parts": {"red": 1.0}}}}\n'
    )
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text()) == {
        "modality": "image",
        "seed": 0,
        "rows": 64,
        "repeats": 1,
        "seconds": 0.0,
        "extra": {},
        "count": 2,
        "rewards": ["r"],
        "sets": {},
    }


def test_faults() -> None:
    with pytest.raises(DataError, match=r"there are no prompts to evaluate on; set data\.held_out"):
        evaluate_policy(Painter(), [], REWARDS, seed=0)
    with pytest.raises(ConfigError, match="2 rows cannot hold the 3 repeats of one prompt"):
        evaluate_policy(Painter(), prompts(), REWARDS, seed=0, rows=2, repeats=3)
    with pytest.raises(CapabilityError, match="reward 'length' judges audio and text, the policy makes image"):
        evaluate_policy(Painter(), prompts(), {"length": Length()}, seed=0)

    class Short(Brightness):
        def __call__(self, rollout: Rollout) -> Scores:
            return Scores.of(torch.zeros(1))

    with pytest.raises(ScoreError, match="reward 'short' answered 1 rows for 4 outputs"):
        evaluate_policy(Painter(), prompts(), {"short": Short()}, seed=0)
    with pytest.raises(MediaError, match="contains NaN; the generator or decoder diverged"):
        evaluate_policy(Painter(float("nan")), prompts(), {}, seed=0)


def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation\.json: cannot be read .*is .*nowhere an evaluation"):
        Evaluation.load(tmp_path / "nowhere")
    evaluate_policy(Speaker(), prompts(3), {"length": Length()}, seed=0).save(tmp_path / "e")
    lines = (tmp_path / "e" / "rows.jsonl").read_text().split("\n")
    (tmp_path / "e" / "rows.jsonl").write_text("\n".join([lines[0], lines[1][:20], lines[2]]))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not a row of an evaluation"):
        Evaluation.load(tmp_path / "e")
    (tmp_path / "e" / "evaluation.json").write_text("{}")
    with pytest.raises(DataError, match=r"evaluation\.json: not an evaluation's head: KeyError\('sets'\)"):
        Evaluation.load(tmp_path / "e")
