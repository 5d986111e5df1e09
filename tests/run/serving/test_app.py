"""A server of rewards over HTTP: what it says of itself, what it refuses, in sentences; rows that fail are statuses."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.types import Audio, Rollout, Scores, Status
from mmalign.rewards.models.wire import PROTOCOL, Limits
from mmalign.rewards.models.wire_in import scores_in
from mmalign.rewards.models.wire_out import message_of
from mmalign.run.serving import app
from mmalign.run.serving.served import named_rewards
from tests.run.serving.in_thread import asked, prompts, serving, texts


@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))
def share_of_a(prompt, output):
    if output == "broken":
        raise RuntimeError("no such thing")
    return output.count("a") / max(len(output), 1)


@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))
def right(output, answer):
    return float(output == answer)


class Rigged:
    """A reward whose calls do what a test wants."""

    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self, rollout: Rollout) -> Scores:
        return self.call(rollout)


def test_it_says_what_it_serves_and_tries_it() -> None:
    with serving({"a": share_of_a(), "r": right(), "sharp": mmalign.load_reward("sharpness")}) as (url, _):
        status, health = asked(url, "GET", "/health")
        assert status == 200 and health["ok"], health
        assert health["rewards"]["a"]["status"] == "ok" and health["rewards"]["a"]["seconds"] > 0
        assert health["rewards"]["r"]["status"] == "not tried" and "--probe" in health["rewards"]["r"]["why"]
        spec = asked(url, "GET", "/spec")[1]
    assert spec["protocol"] == PROTOCOL and spec["mmalign"] and spec["limits"]["rows"] == 1024
    sharp = spec["rewards"]["sharp"]
    assert sharp["modalities"] == ["image"] and sharp["range"] == [0.0, 4.0] and not sharp["differentiable"]
    assert len(sharp["identity"]) == 64 and spec["rewards"]["r"]["needs"] == ["answer"]


def test_health_is_bad_where_the_row_fails_and_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(rollout: Rollout) -> Scores:
        raise RuntimeError("the card fell off the bus")

    gate = threading.Event()

    def hangs(rollout: Rollout) -> Scores:
        gate.wait(20)
        return Scores.of(torch.zeros(len(rollout)))

    monkeypatch.setattr(app, "HEALTH", 3.0)
    with serving({"fails": Rigged(fails), "hangs": Rigged(hangs)}) as (url, _):
        status, health = asked(url, "GET", "/health")
        gate.set()
    assert status == 503 and not health["ok"]
    assert "fell off the bus" in health["rewards"]["fails"]["why"]
    assert health["rewards"]["hangs"] == {"ok": False, "status": "timeout", "why": "no answer within 3 s"}


def test_rows_are_scored_and_one_that_fails_is_a_status() -> None:
    with serving({"a": share_of_a()}) as (url, _):
        status, answer = asked(url, "POST", "/score", texts("aab", "broken", "b"))
    scores = scores_in(answer, 3)
    assert status == 200 and scores.status.tolist() == [Status.OK, Status.ERROR, Status.OK]
    assert scores.value[0] == torch.tensor(2 / 3) and scores.value[2] == 0 and scores.value[1].isnan()
    assert "no such thing" in (scores.info or [])[1] and answer["reward"] == "a" and answer["batch"] == 3


def test_who_does_not_bring_the_token_is_told_nothing() -> None:
    with serving({"a": share_of_a()}, token="a-long-enough-token") as (url, _):
        for method, path in (("GET", "/spec"), ("GET", "/health"), ("POST", "/score")):
            assert asked(url, method, path, texts("a"))[0] == 401
            status, answer = asked(url, method, path, texts("a"), authorization="Bearer another")
            assert status == 401 and "another token" in answer["error"]
            assert asked(url, method, path, texts("a"), authorization="Bearer a-long-enough-token")[0] == 200


def picture_request(size: int) -> dict[str, Any]:
    return message_of(Rollout.of(["p"], torch.rand(1, 3, size, size)), "")


SMALL = Limits(rows=2, bytes=40_000, pixels=32 * 32, seconds=0.5)
REFUSED: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "the message: "),
    "an unknown field": (texts("a") | {"rewards": "a"}, 400, "rewards: Extra inputs"),
    "another protocol": (texts("a") | {"protocol": 7}, 400, "protocol: 7 is asked for, and this is 1"),
    "no rows": (texts(), 400, "names no row"),
    "no such prompt": (texts("a") | {"prompt": [4]}, 400, "there is no prompt 4; there are 1"),
    "fewer outputs": (texts("a", "b") | {"output": {"kind": "text", "texts": ["a"]}}, 400, "1 entries for 2 rows"),
    "a group too few": (texts("a", "b") | {"group": [0]}, 400, "group: has 1 entries for 2 rows"),
    "no base64": (texts("a") | {"tensors": "??"}, 400, "tensors: is not base64"),
    "no tensors": (texts("a") | {"tensors": "AAAA"}, 400, "is no safetensors file"),
    "a tensor that is not there": (texts("a") | {"output": {"kind": "image", "tensor": "t9"}}, 422, "judges text"),
    "another reward": (texts("a", reward="aa"), 404, "no reward 'aa' is served. Did you mean 'a'"),
    "too many rows": (texts("a", "b", "c"), 413, "3 rows are more than the 2"),
    "too many bytes": (texts("a" * 50_000), 413, "are more than the 40,000 of a request"),
}


@pytest.mark.parametrize(("message", "status", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_taken_is_refused_by_a_sentence(message: Any, status: int, sentence: str) -> None:
    with serving({"a": share_of_a()}, limits=SMALL) as (url, _):
        got, answer = asked(url, "POST", "/score", message)
        assert got == status and sentence in answer["error"], answer
        assert asked(url, "POST", "/score", texts("a"))[0] == 200


def test_sizes_are_bounded_however_they_are_sent() -> None:
    sharp = mmalign.load_reward("sharpness")
    with serving({"a": share_of_a(), "sharp": sharp, "loud": mmalign.load_reward("clipping")}, limits=SMALL) as (
        url,
        _,
    ):
        large = picture_request(33) | {"reward": "sharp"}
        assert asked(url, "POST", "/score", picture_request(32) | {"reward": "sharp"})[0] == 200
        status, answer = asked(url, "POST", "/score", large)
        assert status == 413 and "33 x 33 have more than 1,024 pixels" in answer["error"]
        files = message_of(Rollout.of(["p"], torch.zeros(1, 3, 33, 33)), "sharp", "files")
        status, answer = asked(url, "POST", "/score", files)
        assert status == 413 and "33 x 33 have more than 1,024 pixels" in answer["error"]
        for wire in ("safetensors", "files"):
            sound = message_of(Rollout.of(["p"], Audio(torch.zeros(1, 1, 4001), 8000)), "loud", wire)
            status, answer = asked(url, "POST", "/score", sound)
            assert status == 413 and "have more than 0.5 s" in answer["error"], wire
        pieces = (b" " * 10_000 for _ in range(9))  # says no length
        status, answer = asked(url, "POST", "/score", pieces, transfer_encoding="chunked")
        assert status == 413 and "longer than 40,000 bytes" in answer["error"]


def test_a_page_of_a_browser_cannot_ask_and_other_addresses_say_which_there_are() -> None:
    with serving({"a": share_of_a()}) as (url, _):
        assert asked(url, "POST", "/score", texts("a"), content_type="text/plain")[0] == 415
        for method, path in (("GET", "/docs"), ("GET", "/score"), ("POST", "/spec")):
            status, answer = asked(url, method, path, texts("a"))
            assert status in (404, 405) and "POST /score" in answer["error"]


def test_a_message_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(app, "ARRIVAL", 0.5)
    with serving({"a": share_of_a()}) as (url, _):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as stalled:
            head = "POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            stalled.sendall(head.encode())
            assert stalled.recv(100).startswith(b"HTTP/1.1 408")
        assert asked(url, "POST", "/score", texts("a"))[0] == 200


def test_too_much_at_once_is_sent_away_for_a_while() -> None:
    gate = threading.Event()

    def waits(rollout: Rollout) -> Scores:
        gate.wait(20)
        return Scores.of(torch.zeros(len(rollout)))

    with (
        serving({"w": Rigged(waits)}, limits=Limits(bytes=2000), batch=1) as (url, served),
        ThreadPoolExecutor(8) as calls,
    ):
        message = texts("a" * 1500)
        under_way = [calls.submit(asked, url, "POST", "/score", message) for _ in range(4)]
        for _ in range(1000):
            if len(served["w"].scorer._jobs) == 3:
                break
            time.sleep(0.02)
        status, answer = asked(url, "POST", "/score", message)
        gate.set()
        assert status == 429 and "too many requests at once" in answer["error"]
        assert [each.result()[0] for each in under_way] == [200] * 4


def test_rows_of_who_has_gone_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(app, "LOOK", 0.05)
    gate, begun, seen = threading.Event(), threading.Event(), list[str]()

    def waits(rollout: Rollout) -> Scores:
        begun.set()
        gate.wait(20)
        seen.extend(rollout.output)
        return Scores.of(torch.zeros(len(rollout)))

    with serving({"w": Rigged(waits)}, batch=1) as (url, served), ThreadPoolExecutor(1) as calls:
        first = calls.submit(asked, url, "POST", "/score", texts("first"))
        while not begun.wait(0.01):
            pass
        body = json.dumps(texts("gone")).encode()
        head = (
            f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as leaving:
            leaving.sendall(head.encode() + body)
            while not served["w"].scorer._jobs:
                time.sleep(0.01)
        job = served["w"].scorer._jobs[0]
        for _ in range(500):
            if job.answer.cancelled():
                break
            time.sleep(0.02)
        gate.set()
        assert first.result()[0] == 200 and asked(url, "POST", "/score", texts("last"))[0] == 200
    assert seen == ["first", "last"]


def test_a_fault_of_the_set_up_is_an_error_with_its_sentence() -> None:
    def wrong(rollout: Rollout) -> Scores:
        return "0.5"  # type: ignore[return-value]

    with serving({"wrong": Rigged(wrong)}) as (url, _):
        status, answer = asked(url, "POST", "/score", texts("a"))
    assert status == 422 and "returned str; return Scores" in answer["error"]


@pytest.mark.parametrize("wire", ["safetensors", "files"])
def test_several_rewards_score_at_once_each_in_its_own_thread(wire: Any) -> None:
    pictures = torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float() / 255
    rollout = Rollout.of(prompts(4), pictures)
    rewards = {name: mmalign.load_reward(name) for name in ("sharpness", "compressibility", "verifier")}
    with serving(rewards) as (url, _), ThreadPoolExecutor(6) as calls:
        sent = {name: calls.submit(asked, url, "POST", "/score", message_of(rollout, name, wire)) for name in rewards}
        for name, reward in rewards.items():
            got, want = scores_in(sent[name].result()[1], 4), reward(rollout)
            assert torch.equal(got.value, want.value.float()) or got.value.isnan().all(), name
            assert torch.equal(got.status, want.status)


def test_names_and_options_of_several_rewards() -> None:
    one = named_rewards(["clip"], {"checkpoint": "a"})
    assert one == {"clip": ("clip", {"checkpoint": "a"})}
    two = named_rewards(["looks=clip", "sharpness"], {"looks": {"checkpoint": "a"}})
    assert two == {"looks": ("clip", {"checkpoint": "a"}), "sharpness": ("sharpness", {})}
    with pytest.raises(ConfigError) as faults:
        named_rewards(["clip", "clip", "sharpness"], {"checkpoint": "a", "shrpness": {"x": 1}})
    assert all(words in str(faults.value) for words in ("'clip' is named twice", "--set checkpoint", "Did you mean"))
