"""The engine: contract, isolation, breaker, time limits, cache, random state, books."""

import contextlib
import importlib.util
import math
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, ScoreError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.rewards import Guarded, ScoreCache, load_reward, rule
from mmalign.rewards.engine import foreign_code
from mmalign.rewards.engine.cache import identity, row_keys
from mmalign.rewards.engine.foreign_code import RowProcess, preserve_rng_state
from tests.rewards.doubles import Brightness, Given, Numbers, answers, pictures, scores, troubled

OK, NA, PF, ERR, TO = (int(s) for s in Status)


def guard(reward, **options):
    return Guarded("judge", reward, **options)


def test_good_scores_pass_unchanged():
    result = guard(Numbers())(answers("1", "-2.5"))
    assert result.value.tolist() == [1, -2.5] and result.status.tolist() == [OK, OK] and result.info is None


def test_a_failing_row_is_isolated_and_says_why():
    reward = Numbers()
    texts = [str(i) for i in range(31)]
    texts[13] = "thirteen"
    result = guard(reward)(answers(*texts))
    assert result.status.tolist() == [ERR if i == 13 else OK for i in range(31)]
    assert result.value[13].isnan() and result.value[14] == 14
    assert "ValueError: could not convert string to float: 'thirteen' (doubles.py:" in result.info[13]
    assert len(reward.calls) <= 1 + 2 * math.ceil(math.log2(31))


def test_a_reward_that_fails_everywhere_is_not_called_for_every_row():
    reward = Numbers()
    result = guard(reward, failed_share=1.0)(answers(*["x"] * 200))
    assert result.status.tolist() == [ERR] * 200 and all("ValueError" in text for text in result.info)
    assert len(reward.calls) <= 50


def test_the_breaker_stops_a_run_and_names_reward_count_and_reason():
    judge = guard(Numbers(), failed_share=0.3)
    judge(answers(*"12345678"))
    judge(answers(*"1x3x5678"))  # 2 of 16
    judge(answers(*"xx"))  # 4 of 18
    with pytest.raises(ScoreError, match=r"reward 'judge' failed on 8 of the last 22 rows \(limit 30%\); .*ValueError"):
        judge(answers(*"xxxx"))


def test_the_breaker_forgets_and_never_stops_for_a_monitor():
    judge = guard(Numbers(), failed_share=0.5)
    judge(answers(*"123456"))
    for _ in range(15):  # 2 of 6 each: below the limit however often
        judge(answers(*"1234xx"))
    monitor = guard(Numbers(), monitor=True, failed_share=0.0)
    assert monitor(answers(*["x"] * 64)).status.tolist() == [ERR] * 64


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("value", torch.zeros(1), r"returned value of shape \(1,\) for 2 rows; return \(2,\)"),
        ("status", torch.zeros(2, 1, dtype=torch.int8), r"status of shape \(2, 1\)"),
        ("parts", {"a": torch.zeros(3)}, r"parts\[a\] of shape \(3,\)"),
        ("info", ["one"], "1 entries of info for 2 rows"),
        ("status", torch.tensor([0, 9], dtype=torch.int8), r"status 9; known: 0 \(ok\)"),
    ],
)
def test_broken_contracts_stop_at_once(field, value, message):
    own = Scores.of(torch.zeros(2))
    setattr(own, field, value)  # past the annotations, as an outside reward would be
    with pytest.raises(ScoreError, match=message):
        guard(Given(own), failed_share=1.0)(answers("a", "b"))


def test_something_else_than_scores_is_refused():
    with pytest.raises(ScoreError, match="returned list; return Scores"):
        guard(Given([1.0, 2.0]))(answers("a", "b"))  # type: ignore[arg-type]  # what is refused


def test_values_that_are_no_values_become_errors_of_their_row():
    own = scores([math.nan, math.inf, 1.5, 1.00005], [Status.OK] * 4)
    result = guard(Given(own), failed_share=1.0)(answers(*"abcd"))
    assert result.status.tolist() == [ERR, ERR, ERR, OK]
    assert result.value[:3].isnan().all()
    assert result.info[0] == "the value is nan"
    assert result.info[2] == "the value 1.5 is outside the declared range (-1.0, 1.0)"


def test_invalid_is_not_zero_and_parse_fail_is_the_floor():
    own = scores([0.0, 0.0, 0.0, 0.0, 0.5], [Status.NOT_APPLICABLE, Status.PARSE_FAIL, Status.ERROR, Status.TIMEOUT, 0])
    result = guard(Given(own), failed_share=1.0)(answers(*"abcde"))
    assert result.value[1] == -1 and result.value[4] == 0.5
    assert result.value.isnan().tolist() == [True, False, True, True, False]


def test_parse_fail_without_a_floor_is_the_rewards_mistake():
    own = scores([0.0], [Status.PARSE_FAIL])
    with pytest.raises(ScoreError, match="declare a finite floor"):
        guard(Given(own, bounds=(-math.inf, 1.0)))(answers("a"))


@dataclass
class NeedsSetUp(Numbers):
    def __call__(self, rollout):
        raise ConfigError("scale: set it")


def test_faults_of_the_set_up_are_not_blamed_on_rows():
    with pytest.raises(ConfigError, match="scale: set it"):
        guard(NeedsSetUp())(answers("1"))


def test_a_reward_for_another_modality_is_refused():
    with pytest.raises(CapabilityError, match="'judge' judges text; these outputs are image"):
        guard(Numbers())(pictures())
    sound = Rollout([Prompt("a")], Audio(torch.zeros(1, 1, 8), 8000), torch.zeros(1, dtype=torch.long))
    with pytest.raises(CapabilityError, match="these outputs are audio"):
        guard(Brightness())(sound)


@dataclass
class Gambler(Numbers):
    def __call__(self, rollout):
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        return super().__call__(rollout)


def test_global_random_state_is_put_back():
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    guard(Gambler())(answers("1"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state(legacy=False)["state"]["key"]).all()  # noqa: NPY002
    # The annotation checker of these tests draws from `random` itself, so Python's generator is tried without it.
    state = random.getstate()
    with preserve_rng_state():
        random.random()
    assert state == random.getstate()


def test_calls_of_bounded_rows_keep_groups_whole():
    reward = Numbers()
    rollout = answers(*[str(i) for i in range(14)], per_prompt=3)  # groups of 3, 3, 3, 3, 2
    result = guard(reward, rows=7)(rollout)
    assert result.value.tolist() == list(range(14)) and reward.calls == [6, 6, 2]
    guard(reward, rows=2)(rollout)
    assert reward.calls[3:] == [3, 3, 3, 3, 2]


def test_gradient_passes_also_when_a_call_is_cut():
    rollout = pictures()
    rollout.output.requires_grad_()
    guard(Brightness(), rows=2)(rollout).value.sum().backward()
    assert torch.allclose(rollout.output.grad, torch.full_like(rollout.output, 1 / 192))


def test_time_limits_kill_and_replace_the_process():
    judge = guard(troubled(nap=600.0), timeout=1.0, failed_share=1.0)
    try:
        judge(answers("0.5"))  # the start of the process is on nobody's clock
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGINT)  # Ctrl-C is for the run, not for its rows
        assert judge(answers("0.5")).status.tolist() == [OK]
        start = time.perf_counter()
        result = judge(answers("sleep", "0.25", "raise", "decline", "fail", "nan", "exit"))
        assert time.perf_counter() - start < 200  # far below the nap; most of it starts a new process
        assert result.status.tolist() == [TO, OK, ERR, NA, PF, ERR, ERR]
        assert result.value[1] == 0.25 and result.value[4] == -1
        assert result.info[0] == "no answer within 1 s" and "ZeroDivisionError" in result.info[2]
        assert "exit code 7" in result.info[6]
    finally:
        judge.close()


def test_a_process_answers_with_every_field_of_scores():
    more = {"confidence": torch.tensor([0.25]), "per_step": torch.ones(1, 2), "parts": {"a": torch.tensor([2.0])}}
    whole = scores([0.5], **more, info=["why"])
    process = RowProcess(Given(whole), "judge", 60.0)
    try:
        answer = process(answers("a"))
    finally:
        process.close()
    assert all(getattr(whole, field.name) is not None for field in fields(Scores))
    for field in fields(Scores):
        if field.name != "info":
            torch.testing.assert_close(getattr(answer, field.name), getattr(whole, field.name))
    assert answer.info == ["why"]


def test_a_time_limit_needs_a_process_to_kill():
    with pytest.raises(ConfigError, match=r"rewards\.judge\.timeout: only rewards that declare `isolated = True`"):
        guard(Numbers(), timeout=1.0)


def test_books():
    judge = guard(Numbers(), failed_share=1.0)
    judge(answers("1", "3"))
    judge(answers("x", "5"))
    metrics = {name: float(value) for name, value in judge.metrics().items()}
    assert (metrics["mean"], metrics["min"], metrics["max"]) == (3, 1, 5)
    assert metrics["std"] == pytest.approx(math.sqrt(8 / 3))
    assert metrics["ok"] == 0.75 and metrics["error"] == 0.25 and "timeout" not in metrics
    assert 0 < metrics["seconds"] <= metrics["seconds_p95"]
    assert judge.metrics() == {}


def test_parts_are_logged_as_means_of_the_rows_that_have_them():
    nan = float("nan")
    parts = {"count": torch.tensor([0.5, nan]), "size": torch.tensor([nan, nan])}
    judge = Guarded("points", Given(scores([0.1, 0.2], parts=parts)))
    judge(answers("a", "b")), judge(answers("a", "b"))
    metrics = judge.metrics()
    assert float(metrics["parts/count"]) == 0.5 and "parts/size" not in metrics and "parts/count" not in judge.metrics()


# cache -------------------------------------------------------------------------------------------------------------


def test_the_cache_answers_what_it_has_seen(tmp_path):
    cache, reward = ScoreCache(tmp_path / "scores.sqlite"), Numbers()
    judge = guard(reward, cache=cache)
    first = judge(answers("1", "2", "0.1"))
    again = judge(answers("1", "7", "0.1"))  # the prompts q0, q1, q2 are equal
    assert reward.calls == [3, 1]
    assert again.value.tolist() == [first.value[0], 7, first.value[2]]
    assert float(judge.metrics()["cached"]) == pytest.approx(2 / 6)
    fresh = guard(Numbers(), cache=ScoreCache(tmp_path / "scores.sqlite"))
    assert fresh(answers("1", "2", "0.1")).value.tolist() == first.value.tolist() and fresh.reward.calls == []


@pytest.mark.parametrize(
    "other",
    [
        lambda r: (Numbers(scale=2.0), r),
        lambda r: (Numbers(), answers("1", "2.0")),
        lambda r: (Numbers(), Rollout([Prompt("other"), r.prompts[1]], r.output, r.group)),
        lambda r: (Numbers(), Rollout([Prompt("q0", meta={"answer": 1}), r.prompts[1]], r.output, r.group)),
        lambda r: (
            Numbers(),
            Rollout([Prompt("q0", media={"image": torch.zeros(3, 2, 2)}), *r.prompts[1:]], r.output, r.group),
        ),
    ],
)
def test_the_cache_sees_every_difference(tmp_path, other):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    rollout = answers("1", "2")
    guard(Numbers(), cache=cache)(rollout)
    reward, changed = other(rollout)
    guard(reward, cache=cache)(changed)
    assert sum(reward.calls) >= 1


def test_the_cache_keys_pictures_by_their_exact_bytes(tmp_path):
    from mmalign.rewards.engine.cache import row_keys

    rollout = pictures()
    keys = row_keys("r", rollout)
    assert len(set(keys)) == 4 and row_keys("s", rollout) != keys
    nudged = Rollout(rollout.prompts, rollout.output.clone(), rollout.group)
    nudged.output[2, 0, 0, 0] = torch.nextafter(nudged.output[2, 0, 0, 0], torch.tensor(2.0))
    assert [a == b for a, b in zip(keys, row_keys("r", nudged), strict=True)] == [True, True, False, True]
    turned = Rollout(rollout.prompts, rollout.output.reshape(4, 3, 4, 16), rollout.group)
    assert not set(keys) & set(row_keys("r", turned))


def test_failures_and_gradients_and_undeclared_rewards_are_not_cached(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    judge = guard(Numbers(), cache=cache, failed_share=1.0)
    judge(answers("x"))
    judge(answers("x"))
    assert len(judge.reward.calls) == 2
    rollout = pictures()
    with torch.no_grad():
        guard(Brightness(), cache=cache)(rollout)
    rollout.output.requires_grad_()
    assert guard(Brightness(), cache=cache)(rollout).value.requires_grad
    undeclared = Numbers()
    undeclared.deterministic = False
    for _ in range(2):
        guard(undeclared, cache=cache)(answers("3"))
    assert undeclared.calls == [1, 1]


def test_the_cache_knows_long_arrays_nested_rewards_and_a_rules_own_words(tmp_path):
    table = np.arange(5000.0)
    other = np.where(table == 2500, -1.0, table)  # where an array's repr says "..."
    rollouts = [
        Rollout([Prompt("a", meta={"boxes": v})], ["1"], torch.zeros(1, dtype=torch.long)) for v in (table, other)
    ]
    assert row_keys("who", rollouts[0]) != row_keys("who", rollouts[1])
    nested = {"name": "bmas", "checkpoint": "assets/scenes_clip"}
    named = load_reward("cosine_length", unit="words", correct=nested)
    assert load_reward(**nested).fingerprint() in identity(named)

    def made(body):
        file = tmp_path / f"{len(body)}.py"
        file.write_text(f"def short(prompt, output, *, n: int = 1) -> float:\n    return {body}\n")
        spec = importlib.util.spec_from_file_location("short", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return identity(rule(modalities={"text"}, range=(0.0, 1.0))(module.short)())

    assert made("0.5") == made("0.5") != made("0.25")


def test_every_field_survives_the_cache(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    written = scores([0.1, None], [Status.OK, Status.NOT_APPLICABLE], confidence=torch.tensor([0.7, 0.2]))
    written.parts, written.info = {"a": torch.tensor([1 / 3, math.nan])}, ["", "why"]
    cache.write([b"k", b"l"], written)
    cached = cache.read([b"l", b"k", b"m"])
    assert set(cached) == {b"k", b"l"}
    assert cached[b"k"].value.tolist() == written.value[:1].tolist() and cached[b"l"].value.isnan()
    assert cached[b"k"].parts["a"].tolist() == written.parts["a"][:1].tolist() and cached[b"l"].info == ["why"]
    assert cached[b"k"].confidence.tolist() == written.confidence[:1].tolist()
    assert sqlite3.connect(cache.path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_foreign_file_is_no_cache(tmp_path):
    path = tmp_path / "scores.sqlite"
    path.write_text("not a database at all" * 100)
    with pytest.raises(CheckpointError, match=r"scores\.sqlite: cannot be used as a score cache"):
        ScoreCache(path)


def change(path, statement, *values):
    """Do in a cache's file what another program would."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


def test_a_cache_of_another_schema_is_said_and_rows_of_another_version_are_scored_again(tmp_path):
    for place, table in {"other": "(id INTEGER, score REAL)", "more": "(key BLOB, row TEXT, extra TEXT)"}.items():
        with sqlite3.connect(tmp_path / place) as db:
            db.execute(f"CREATE TABLE scores {table}")
        with pytest.raises(
            CheckpointError, match=rf"{place}: cannot be used as a score cache \(its table 'scores' has"
        ):
            ScoreCache(tmp_path / place)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    guard(Numbers(), cache=cache)(answers("1", "2"))
    for damaged in ("not JSON", "[]", '{"value": 1.0}', '{"value": "x", "status": 0, "confidence": null, "parts": {}}'):
        change(cache.path, "UPDATE scores SET row = ?", damaged)
        reward = Numbers()
        assert guard(reward, cache=cache)(answers("1", "2")).value.tolist() == [1, 2]
        assert reward.calls == [2], damaged
    change(cache.path, "DROP TABLE scores")
    with pytest.raises(CheckpointError, match=r"scores\.sqlite: cannot be used as a score cache \(no such table"):
        guard(Numbers(), cache=cache)(answers("1"))


@dataclass
class Doing(Numbers):
    """Does what a reward should not."""

    act: str = ""
    folder: str = "/"

    def __call__(self, rollout):
        if self.act == "leave":
            sys.exit(0)
        if self.act == "move":
            os.chdir(self.folder)
        if self.act == "sleep":
            time.sleep(0.5)
        return super().__call__(rollout)


def test_a_reward_that_exits_is_an_error_of_its_rows_and_not_the_end():
    result = guard(Doing(act="leave"), failed_share=1.0)(answers("1", "2"))
    assert result.status.tolist() == [ERR, ERR] and result.info[0].startswith("SystemExit: 0")

    @rule(modalities={"text"}, range=(0.0, 1.0))
    def leaving(prompt: Prompt, output: str) -> float:
        return 1.0 if output == "stay" else sys.exit(0)

    assert guard(leaving(), failed_share=1.0)(answers("stay", "go")).status.tolist() == [OK, ERR]


def test_a_reward_that_changes_the_folder_moves_nothing(tmp_path):
    here = Path.cwd()
    assert guard(Doing(act="move", folder=str(tmp_path)))(answers("1")).value.tolist() == [1]
    assert Path.cwd() == here


def test_a_reward_that_takes_long_is_named(monkeypatch, capfd):
    monkeypatch.setattr(foreign_code, "SLOW", 0.1)
    guard(Doing(act="sleep"))(answers("1", "2"))
    notes = [line for line in capfd.readouterr().err.splitlines() if line]
    assert all(re.fullmatch(r"note: reward 'judge' has been scoring 2 rows for \d+ s\.", line) for line in notes)
    assert 2 <= len(notes) <= 6  # each after twice the time: about two, more where the machine is busy
    guard(Doing())(answers("1", "2"))
    assert capfd.readouterr().err == ""


KILLED = """
import multiprocessing, threading, time
from tests.rewards.doubles import answers, troubled
from mmalign.rewards import Guarded

if __name__ == "__main__":
    judge = Guarded("judge", troubled(nap=600.0), timeout=600.0)
    judge.prepare()
    threading.Thread(target=judge, args=(answers("sleep"),), daemon=True).start()
    time.sleep(1)
    (judging,) = multiprocessing.active_children()
    print(judging.pid, flush=True)
    time.sleep(600)
"""


def test_no_process_outlives_a_killed_run(tmp_path):
    """Not even one whose row is at work."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = str(Path(__file__).parents[3])
    run = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    judging = int(run.stdout.readline())
    os.kill(judging, 0)
    run.kill()
    run.communicate()
    for _ in range(100):
        try:
            os.kill(judging, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(judging, signal.SIGKILL)
    pytest.fail("the reward's process is still there 10 s after its run was killed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.tensor([1j])}, r"value of complex numbers \(torch\.complex64\)"),
        ({"value": [0.5]}, "value as list; return a tensor"),
        ({"parts": {"inner": torch.tensor([1j])}}, r"parts\[inner\] of complex numbers"),
        ({"per_step": torch.ones(1, 2) * 1j}, "per_step of complex numbers"),
    ],
)
def test_numbers_that_are_not_real_tensors_are_the_rewards_mistake(change, message):
    own = scores([0.5])
    for name, value in change.items():
        setattr(own, name, value)
    with pytest.raises(ScoreError, match=message):
        guard(Given(own))(answers("a"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"per_step": torch.tensor([[0.5, math.nan], [0.1, 0.2]])}, "the credit of a step is not finite"),
        ({"confidence": torch.tensor([math.nan, 0.5])}, "the confidence is nan, not in [0, 1]"),
        ({"confidence": torch.tensor([2.0, 0.5])}, "the confidence is 2, not in [0, 1]"),
    ],
)
def test_numbers_beside_the_value_that_make_no_sense_are_errors_of_their_row(more, message):
    result = guard(Given(scores([0.5, 0.5], **more)), failed_share=1.0)(answers("a", "b"))
    assert result.status.tolist() == [ERR, OK] and result.info == [message, ""]


@dataclass
class Writing(Brightness):
    """Changes what it is given."""

    where: str = "group"

    def __call__(self, rollout):
        scores = super().__call__(rollout)
        if self.where == "group":
            rollout.group[:] = 0
            rollout.mask[:] = False
            rollout.prompts[0].meta["boxes"].append(1)
            rollout.prompts[1].meta["new"] = 1
            rollout.prompts.clear()
        elif self.where == "in place":
            rollout.output.flip(0).copy_(rollout.output)
            rollout.output[0], rollout.output[1] = rollout.output[1].clone(), rollout.output[0].clone()
        elif self.where == "numpy":
            rollout.output.numpy()[:] *= 255
        elif self.where == "one value":
            rollout.output.numpy()[2, 1, 1, 1] += 1
        elif self.where == "latents by numpy":
            rollout.trajectory["x0"].numpy()[:] += 1
        elif self.where == "latents":
            rollout.trajectory["x0"] += 1
        elif self.where == "media":
            rollout.prompts[0].media["image"].zero_()
        return scores


def shown():
    rollout = pictures()
    rollout.mask = torch.ones(4, 2, dtype=torch.bool)
    rollout.trajectory = {"x0": torch.zeros(4, 2)}
    rollout.prompts = [Prompt("a", {"image": torch.ones(3, 2, 2)}, {"boxes": [[1, 2]]}) for _ in range(4)]
    return rollout


def test_what_a_reward_writes_beside_its_scores_changes_nothing():
    rollout, before = shown(), shown()
    guard(Writing())(rollout)
    assert torch.equal(rollout.group, before.group) and torch.equal(rollout.mask, before.mask)
    assert [prompt.meta for prompt in rollout.prompts] == [prompt.meta for prompt in before.prompts]


@pytest.mark.parametrize("where", ["in place", "numpy", "one value", "latents", "latents by numpy", "media"])
def test_a_reward_that_writes_into_outputs_ends_the_run(where):
    with pytest.raises(ScoreError, match="reward 'judge' wrote into what it was given to judge"):
        guard(Writing(where=where))(shown())
