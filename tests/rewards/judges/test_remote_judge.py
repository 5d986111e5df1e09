"""A judge on a server answers as the same judge in this process does; a server that fails is a status, never a hang."""

from __future__ import annotations

import json
import math
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.rewards import Guarded
from tests.adapters.language.tiny_alm import RATE, write_tiny_alm
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.judges import openai_server as servers

SAID = {"yes": "good", "no": "bad", "least_mass": 0.0}
WRITERS = {"llama": write_tiny_lm, "llava": write_tiny_vlm, "qwen2_audio": write_tiny_alm}


def outputs(kind: str) -> Rollout:
    prompts = [Prompt("a red"), Prompt("two blue"), Prompt("a red")]
    draw = torch.Generator().manual_seed(3)
    if kind == "llama":
        return Rollout.of(prompts, ["good", "bad red", "good"])
    if kind == "llava":
        return Rollout.of(prompts, torch.randint(256, (3, 3, 16, 16), generator=draw).float() / 255)
    sounds = torch.randint(-(2**15), 2**15, (3, 1, RATE // 4), generator=draw).float() / 2**15
    return Rollout.of(prompts, Audio(sounds, RATE))


@pytest.mark.parametrize("kind", WRITERS)
def test_it_answers_as_the_same_judge_does_here(kind: str, tmp_path: Path) -> None:
    options = {} if kind == "qwen2_audio" else {"chat": True}
    WRITERS[kind](tmp_path / "judge", kind, **options)  # type: ignore[operator]
    here = mmalign.load_reward("yes_no", checkpoint=str(tmp_path / "judge"), judge=SAID)
    rollout = outputs(kind)
    want = here(rollout)
    with servers.serving(servers.of_judge(here.ask), ["the-judge"]) as (url, seen):
        there = mmalign.load_reward("yes_no", checkpoint="the-judge", judge={**SAID, "server": {"url": url}})
        there.prepare()
        got = there(rollout)
    assert torch.allclose(got.value, want.value, atol=2e-4), (got, want)
    assert torch.allclose(got.parts["mass"], want.parts["mass"], atol=2e-3)
    assert len(seen) == 1 + len({(p.text, str(o)) for p, o in zip(rollout.prompts, _each(rollout), strict=True)})
    assert there.ask.endpoint.counts["prompt_tokens"] == 7 * len(seen)


def _each(rollout: Rollout) -> list[Any]:
    made = rollout.output
    return list(made) if isinstance(made, list) else list(made.samples if isinstance(made, Audio) else made)


def asking(reply: servers.Reply, rows: int = 1, **server: Any) -> tuple[Scores, list[dict[str, Any]], Any]:
    """The scores of `rows` texts by a server that replies so, what it was asked, and the reward."""
    with servers.serving(reply, ["m"]) as (url, seen):
        given = {"url": url, "deadline": 2.0, "attempts": 3, "pause": 0.01, **server}
        reward = mmalign.load_reward("yes_no", checkpoint="m", judge={"server": given})
        scores = reward(Rollout.of([Prompt(f"p{i}") for i in range(rows)], [f"t{i}" for i in range(rows)]))
        return scores, seen, reward


def answering(*table: tuple[str, float]) -> servers.Reply:
    return lambda handler, request: servers.send(handler, servers.said(*table))


def test_every_spelling_of_a_word_counts_and_no_answer_is_a_fault() -> None:
    table = [(" Yes", math.log(0.4)), ("yes", math.log(0.2)), ("NO", math.log(0.1)), ("Yesterday", math.log(0.3))]
    scores, seen, _ = asking(answering(*table))
    assert float(scores.value) == pytest.approx(6 / 7, abs=1e-5) and float(scores.parts["mass"]) == pytest.approx(0.7)
    assert seen[0]["messages"][0]["content"].startswith("Request:\np0") and seen[0]["top_logprobs"] == 20
    scores, _, _ = asking(answering(("yes", math.log(0.9)), ("Well", math.log(0.04))))
    assert float(scores.parts["margin"]) == pytest.approx(math.log(0.9 / 0.04))  # no more than this can be no
    scores, _, _ = asking(answering(("Maybe", math.log(0.9)), ("yes", math.log(0.1))))
    assert scores.status.tolist() == [Status.ERROR] and "would begin with 'Maybe'" in (scores.info or [""])[0]


FAULTS: dict[str, tuple[servers.Reply, str, int]] = {
    "stalls": (servers.stalls, "no answer within 2 s", 1),
    "drips": (servers.drips, "no whole answer within 2 s", 1),
    "drips headers": (servers.drips_headers, "no answer within 2 s", 1),
    "promises more": (servers.promises_more, "without sending complete message body", 3),
    "half an answer": (servers.half, "is no JSON", 3),
    "endless": (servers.endless, "longer than 4 MiB", 1),
    "dies": (servers.dies, "RemoteProtocolError|ReadError", 3),
    "500": (lambda h, _: servers.send(h, b"out of memory", 500), "status 500: out of memory", 3),
    "400": (lambda h, _: servers.send(h, {"error": "no such option"}, 400), "status 400: .*no such option", 1),
    "401": (lambda h, _: servers.send(h, b"who are you", 401), "status 401", 1),
    "redirect": (lambda h, _: servers.send(h, b"", 302, location="http://127.0.0.1:1/"), "status 302", 1),
    "NaN": (answering(("yes", math.nan)), "log-probs that are none", 1),
    "above 0": (answering(("yes", 3.0)), "log-probs that are none", 1),
    "no log-probs": (lambda h, _: servers.send(h, {"choices": [{"logprobs": None}]}), "set judge.server.samples", 1),
    "a list": (lambda h, _: servers.send(h, [1]), "is no object", 1),
    "nested": (lambda h, _: servers.send(h, b"[" * 200_000), "is no JSON", 3),
}


@pytest.mark.parametrize(("reply", "why", "asked"), FAULTS.values(), ids=FAULTS.keys())
def test_a_server_that_fails_is_an_error_of_the_row_and_is_asked_as_often_as_it_helps(
    reply: servers.Reply, why: str, asked: int
) -> None:
    import re

    scores, seen, reward = asking(reply)
    assert scores.status.tolist() == [Status.ERROR] and scores.value.isnan().all()
    assert re.search(why, (scores.info or [""])[0]), scores.info
    assert len(seen) == asked
    assert reward.ask.endpoint.counts["retries"] == asked - 1


def test_what_the_server_counts_is_in_the_numbers_of_the_reward() -> None:
    with servers.serving(answering(("yes", -0.1)), ["m"]) as (url, _):
        reward = mmalign.load_reward("yes_no", checkpoint="m", judge={"server": {"url": url}})
        guarded = Guarded("judged", reward)
        for _ in range(2):
            guarded(Rollout.of([Prompt(f"p{row}") for row in range(3)], ["a", "b", "c"]))
            metrics = guarded.metrics()
            assert [metrics[name] for name in ("requests", "prompt_tokens", "completion_tokens")] == [3, 21, 3]
            assert "retries" not in metrics


def test_it_waits_as_long_as_the_server_asks_and_then_has_an_answer() -> None:
    times: list[float] = []

    def busy(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            return servers.send(handler, b"slow down", 429, retry_after="0.4")
        return servers.send(handler, servers.said(("yes", -0.1)))

    scores, _, _ = asking(busy)
    assert scores.valid.all() and times[1] - times[0] >= 0.4


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    start = time.monotonic()
    scores, seen, _ = asking(lambda h, _: servers.send(h, b"", 429, retry_after="900"))
    assert scores.status.tolist() == [Status.ERROR] and len(seen) == 1 and time.monotonic() - start < 60


def test_rows_fail_one_by_one_and_as_many_are_under_way_as_may_be() -> None:
    lock, under_way, most = threading.Lock(), [0], [0]

    def some(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.1)
        with lock:
            under_way[0] -= 1
        if "p3" in request["messages"][0]["content"]:
            return servers.send(handler, b"bad", 400)
        return servers.send(handler, servers.said(("yes", -0.1), ("no", -3.0)))

    scores, _, _ = asking(some, rows=8, concurrency=4, deadline=30.0)
    assert scores.status.tolist() == [Status.ERROR if i == 3 else Status.OK for i in range(8)] and 2 <= most[0] <= 4


def test_answers_are_drawn_where_there_are_no_log_probs() -> None:
    texts = ["Yes.", "yes it does", "No", "perhaps"]
    answer = {"choices": [{"message": {"content": text}} for text in texts]}
    scores, seen, _ = asking(lambda h, _: servers.send(h, answer), samples=4)
    assert seen[0]["n"] == 4 and seen[0]["temperature"] == 1.0
    assert float(scores.parts["mass"]) == 0.75
    assert float(scores.parts["margin"]) == pytest.approx(math.log(2.5 / 1.5))
    scores, _, _ = asking(lambda h, _: servers.send(h, {"choices": []}), samples=4)
    assert "gave 0 of 4 answers" in (scores.info or [""])[0]


def test_the_key_comes_from_the_environment_and_is_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "s3cret")
    _, seen, reward = asking(answering(("yes", -0.1)), key="A_KEY")
    assert seen[0]["key"] == "Bearer s3cret"
    assert "s3cret" not in repr(vars(reward.ask)) and b"s3cret" not in pickle.dumps(reward)


def test_what_is_wrong_with_the_set_up_is_said_before_anything_is_scored() -> None:
    def loaded(url: str, model: str = "m") -> Any:
        server = {"url": url, "deadline": 2.0, "attempts": 1}
        return mmalign.load_reward("yes_no", checkpoint=model, judge={"server": server})

    with servers.serving(answering(("yes", -0.1)), ["m", "other"]) as (url, _):
        loaded(url).prepare()
        with pytest.raises(ConfigError, match=r"has no model 'othr'\. Did you mean 'other'"):
            loaded(url, "othr").prepare()
    with pytest.raises(ConfigError, match=r"judge\.server: http://127\.0\.0\.1:\d+/v1: ConnectError"):
        loaded(url).prepare()
    without = servers.serving(lambda h, _: servers.send(h, {"choices": [{}]}), ["m"])
    with without as (url, _), pytest.raises(ConfigError, match=r"set judge\.server\.samples"):
        loaded(url).prepare()
    with pytest.raises(ConfigError) as faults:
        mmalign.load_reward(
            "yes_no",
            checkpoint="m",
            judge={"server": {"url": "localhost", "key": "NO_SUCH", "attempts": 0, "deadline": 0.0}},
        )
    assert all(word in str(faults.value) for word in ("url", "NO_SUCH", "attempts", "deadline"))
    with pytest.raises(ConfigError, match=r"judge\.adapter: dtype say"):
        mmalign.load_reward(
            "yes_no", checkpoint="m", judge={"server": {"url": "http://h/v1"}, "adapter": {"dtype": "x"}}
        )


@pytest.fixture
def judged() -> Iterator[Callable[[], str]]:
    with servers.serving(answering(("yes", -0.2), ("no", -2.0)), ["m"]) as (url, _):
        yield partial(str, url)


def test_every_reward_that_asks_takes_a_server(judged: Callable[[], str]) -> None:
    judge = {"server": {"url": judged()}}
    asked = {"criteria": ["warm"], "key_points": [{"point": "size", "question": "Is it red?"}]}
    picture = Rollout.of([Prompt("a red circle", meta=asked)], torch.rand(1, 3, 8, 8))
    for name in ("criteria", "align_evaluator", "yes_no"):
        scores = mmalign.load_reward(name, checkpoint="m", judge=judge)(picture)
        assert scores.valid.all() and 0.5 < float(scores.value) <= 1, name
    row = Prompt("x", meta={"instructions": ["be kind"]})
    scores = mmalign.load_reward("instruction_adherence", checkpoint="m", judge=judge)(Rollout.of([row], ["hello"]))
    assert scores.valid.all()
    assert json.dumps(judge)
