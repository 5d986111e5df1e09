"""A reward on a server scores as it does here, to the last bit; a server that fails is a status, never a hang."""

from __future__ import annotations

import json
import math
import pickle
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError, ScoreError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.rewards import Guarded, ScoreCache
from mmalign.rewards.judges import remote
from mmalign.rewards.models.wire import Limits
from tests.rewards.judges import openai_server as servers
from tests.run.serving.in_thread import serving

CLIP = "assets/scenes_clip"
CAPTIONS = ["a red circle", "two blue squares", "a green star above a red circle"]
DRAW = torch.Generator().manual_seed(0)
PICTURES = torch.rand(6, 3, 64, 64, generator=DRAW)


def pictures() -> Rollout:
    return Rollout.of([CAPTIONS[row // 2] for row in range(6)], PICTURES)


def captions() -> Rollout:
    prompts = [Prompt(f"describe {row}", {"image": PICTURES[row]}, {"answer": CAPTIONS[row]}) for row in range(3)]
    return Rollout.of(prompts, [CAPTIONS[0], "", CAPTIONS[2]])


def groups() -> Rollout:
    asked = [Prompt(text, meta={"answer": "a"}) for text in ("p", "p", "q", "q")]
    return Rollout.of(asked, ["a", "a b c", "a", "a"])


def sounds() -> Rollout:
    mask = torch.arange(8000) < torch.tensor([8000, 3000, 5000])[:, None]
    return Rollout.of(["a", "b", "c"], Audio(torch.rand(3, 2, 8000, generator=DRAW) * 2.2 - 1.1, 16000, mask))


CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Rollout]]] = {
    "pictures by CLIP": ("clip", {"checkpoint": CLIP}, pictures),
    "lengths within a group": ("group_length", {}, groups),
    "pictures by rule": ("sharpness", {}, pictures),
    "scenes": ("verifier", {}, pictures),
    "texts with a column": ("exact_match", {}, captions),
    "captions of pictures": ("clip_s", {"checkpoint": CLIP}, captions),
    "sounds": ("clipping", {}, sounds),
    "loudness": ("loudness", {}, sounds),
}


@pytest.mark.parametrize("case", CASES)
def test_it_scores_as_the_same_reward_does_here(case: str) -> None:
    name, options, outputs = CASES[case]
    here = mmalign.load_reward(name, **options)
    with serving({"served": here}) as (url, _):
        there = mmalign.load_reward("remote", url=url)
        there.prepare()
        rollout = outputs()
        got, want = Guarded("there", there, monitor=True)(rollout), Guarded("here", here, monitor=True)(rollout)
        assert there.modalities == here.modalities and there.range == here.range
    assert want.valid.any()
    for mine, theirs in (
        (got.value, want.value),
        (got.status, want.status),
        *zip(_parts(got), _parts(want), strict=True),
    ):
        assert torch.equal(mine.nan_to_num(7), theirs.nan_to_num(7)), (mine, theirs)
    assert got.info == want.info and list(got.parts) == list(want.parts)


def _parts(scores: Scores) -> list[torch.Tensor]:
    return [*scores.parts.values(), *([] if scores.confidence is None else [scores.confidence])]


def test_files_lose_what_eight_bits_lose() -> None:
    here = mmalign.load_reward("clip", checkpoint=CLIP)
    with serving({"served": here}) as (url, _):
        got = mmalign.load_reward("remote", url=url, wire="files")(pictures())
    rounded = Rollout.of(pictures().prompts, (PICTURES * 255).round() / 255)
    assert torch.equal(got.value, here(rounded).value) and not torch.equal(got.value, here(pictures()).value)


def test_a_call_is_cut_into_requests_that_are_under_way_at_once() -> None:
    here = mmalign.load_reward("sharpness")
    small = Limits(rows=4, bytes=150_000)
    with serving({"served": here}, limits=small) as (url, _):
        there = Guarded("there", mmalign.load_reward("remote", url=url), monitor=True)
        got = there(pictures())  # 48 KiB each: two fit
        assert torch.equal(got.value, here(pictures()).value)
        assert there.metrics()["requests"] == 3
        assert there.reward(captions_of(9)).status.tolist() == [Status.ERROR] * 9  # it judges none: 422, three times
        by_hand = mmalign.load_reward("remote", url=url, rows=1)
        assert torch.equal(by_hand(pictures()).value, got.value) and by_hand._endpoint.counts["requests"] == 6


def captions_of(count: int) -> Rollout:
    return Rollout.of(["p"] * count, ["t"] * count)


def test_columns_that_do_not_travel_are_the_fault_of_their_row() -> None:
    prompts = [Prompt("a", meta={"answer": "x"}), Prompt("b", meta={"answer": "y", "extra": torch.zeros(1)})]
    with serving({"served": mmalign.load_reward("exact_match")}) as (url, _):
        scores = Guarded("there", mmalign.load_reward("remote", url=url), monitor=True)(Rollout.of(prompts, ["x", "y"]))
    assert scores.status.tolist() == [Status.OK, Status.ERROR]
    assert "meta.extra: holds" in (scores.info or [])[1]


SPEC = {
    "mmalign": "9.9.9",
    "protocol": 1,
    "rewards": {"far": {"reward": "length", "modalities": ["text"], "range": [0.0, 1.0], "identity": "abc"}},
    "limits": {"rows": 64, "bytes": 1000000},
}
PAGES = {"spec": SPEC, "health": {"ok": True}}


def scored(count: int, **change: Any) -> dict[str, Any]:
    return {"protocol": 1, "identity": "abc", "value": [0.5] * count, "status": ["ok"] * count, **change}


def asking(reply: servers.Reply, rows: int = 2, **options: Any) -> tuple[Scores, list[dict[str, Any]], Guarded]:
    """The scores of `rows` texts by a server that replies so, what it was asked, and the reward."""
    with servers.serving(reply, pages=PAGES) as (url, seen):
        there = mmalign.load_reward("remote", url=url, **{"deadline": 2.0, "attempts": 3, "pause": 0.01, **options})
        reward = Guarded("far", there, monitor=True)
        return reward(captions_of(rows)), seen, reward


def answering(answer: Any, status: int = 200, **headers: str) -> servers.Reply:
    return lambda handler, request: servers.send(handler, answer, status, **headers)


def huge(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    servers.send(handler, b'{"protocol": "' + b"x" * (3 << 20) + b'"}')


FAULTS: dict[str, tuple[servers.Reply, Status, str, int]] = {
    "stalls": (servers.stalls, Status.TIMEOUT, "no answer within 2 s", 1),
    "drips": (servers.drips, Status.TIMEOUT, "no whole answer within 2 s", 1),
    "drips headers": (servers.drips_headers, Status.TIMEOUT, "no answer within 2 s", 1),
    "dies": (servers.dies, Status.ERROR, "RemoteProtocolError|ReadError", 3),
    "half": (answering(json.dumps(scored(2)).encode()[:40]), Status.ERROR, "is no JSON", 3),
    "promises more": (servers.promises_more, Status.ERROR, "without sending complete message body", 3),
    "huge": (huge, Status.ERROR, "longer than 1 MiB", 1),
    "not JSON": (answering(b"<html>hello</html>"), Status.ERROR, "is no JSON: b'<html>", 3),
    "a list": (answering([0.5, 0.5]), Status.ERROR, "is no object", 1),
    "deep": (answering(b"[" * 200_000), Status.ERROR, "is no JSON", 3),
    "500": (answering({"error": "out of memory."}, 500), Status.ERROR, "status 500: out of memory [(]asked 3", 3),
    "429": (answering({"error": "busy"}, 429, retry_after="900"), Status.ERROR, "status 429: busy$", 1),
    "401": (answering({"error": "who are you"}, 401), Status.ERROR, "status 401: who are you", 1),
    "413": (answering({"error": "too large"}, 413), Status.ERROR, "status 413: too large", 1),
    "elsewhere": (answering(b"", 302, location="http://127.0.0.1:1/"), Status.ERROR, "status 302", 1),
    "fewer": (answering(scored(1)), Status.ERROR, "value: has 1 entries for 2 rows", 1),
    "more": (answering(scored(2, value=[0.5] * 3)), Status.ERROR, "value: has 3 entries for 2 rows", 1),
    "NaN": (answering(scored(2, value=[math.nan] * 2)), Status.ERROR, "the value is nan", 1),
    "infinite": (answering(scored(2, value=[math.inf] * 2)), Status.ERROR, "the value is inf", 1),
    "null": (answering(scored(2, value=[None] * 2)), Status.ERROR, "the value is nan", 1),
    "out of range": (answering(scored(2, value=[7.0] * 2)), Status.ERROR, "outside the declared range", 1),
    "no number": (answering(scored(2, value=["x", "y"])), Status.ERROR, "value.0: ", 1),
    "no status": (answering(scored(2, status=["fine"] * 2)), Status.ERROR, "'fine' is none of ok", 1),
    "parts": (answering(scored(2, parts={"p": [1.0]})), Status.ERROR, "parts.p: has 1 entries", 1),
    "another model": (answering(scored(2, identity="def")), Status.ERROR, "by other weights or options [(]def[)]", 1),
}


@pytest.mark.parametrize(("reply", "status", "why", "sent"), FAULTS.values(), ids=FAULTS.keys())
def test_a_server_that_fails_is_a_status_of_its_rows_and_is_asked_as_often_as_it_helps(
    reply: servers.Reply, status: Status, why: str, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_ANSWER", 1 << 20)
    start = time.monotonic()
    scores, seen, reward = asking(reply)
    assert time.monotonic() - start < 60
    assert scores.status.tolist() == [status] * 2 and scores.value.isnan().all()
    assert scores.info and all(re.search(why, words) for words in scores.info), scores.info
    metrics = reward.metrics()
    assert metrics[status.label] == 1 and len(seen) == sent and metrics["requests"] == 1
    assert metrics.get("retries", 0) == sent - 1


def test_it_waits_as_long_as_the_server_asks_and_then_has_its_scores() -> None:
    times: list[float] = []

    def busy(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            return servers.send(handler, {"error": "busy"}, 429, retry_after="0.4")
        return servers.send(handler, scored(2))

    scores, _, reward = asking(busy, deadline=30.0)
    assert scores.value.tolist() == [0.5] * 2 and times[1] - times[0] >= 0.4 and reward.metrics()["retries"] == 1


def test_too_many_failures_end_a_run_with_the_servers_own_words() -> None:
    with servers.serving(answering({"error": "the disk is full"}, 500), pages=PAGES) as (url, _):
        reward = Guarded("far", mmalign.load_reward("remote", url=url, attempts=1))
        with pytest.raises(
            ScoreError, match=r"reward 'far' failed on 8 of the last 8 rows .*status 500: the disk is full"
        ):
            reward(captions_of(8))


def test_one_request_that_fails_takes_no_other_with_it() -> None:
    def some(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        texts = request["output"]["texts"]
        servers.send(handler, {"error": "no"}, 400) if "t3" in texts else servers.send(handler, scored(len(texts)))

    with servers.serving(some, pages=PAGES) as (url, _):
        reward = Guarded("far", mmalign.load_reward("remote", url=url, rows=1, concurrency=3), monitor=True)
        scores = reward(Rollout.of(["p"] * 6, [f"t{row}" for row in range(6)]))
    assert scores.status.tolist() == [Status.ERROR if row == 3 else Status.OK for row in range(6)]


def refused(pages: Any = PAGES, **options: Any) -> str:
    with servers.serving(answering(scored(1)), pages=pages) as (url, _), pytest.raises(ConfigError) as fault:
        mmalign.load_reward("remote", **{"url": url, **options}).prepare()
    return str(fault.value)


def spec(**change: Any) -> dict[str, Any]:
    return {**PAGES, "spec": {**SPEC, **change}}


def test_what_a_server_is_not_is_said_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret")
    assert "speaks protocol 2 (mmalign '9.9.9'), and this mmalign speaks 1" in refused(spec(protocol=2))
    assert "speaks protocol None" in refused({"spec": {"data": []}})
    assert "rewards.far.modalities.0: " in refused(
        spec(rewards={"far": {**SPEC["rewards"]["far"], "modalities": ["film"]}})  # type: ignore[index]
    )
    assert "serves no 'fra'. Did you mean 'far'? It serves far" in refused(served="fra")
    two = spec(rewards={"far": SPEC["rewards"]["far"], "near": SPEC["rewards"]["far"]})  # type: ignore[index]
    assert "serves far, near; name one of them" in refused(two)
    assert "is `mmalign serve` running there?" in refused(url="http://127.0.0.1:9", attempts=1)
    both = refused(url="gpu:8700", token="NO_SUCH_VARIABLE")
    assert "url: 'gpu:8700' is no address" in both and "token: the environment has no variable" in both
    assert "A_TOKEN" not in refused(served="fra", token="A_TOKEN")


def test_a_reward_that_does_not_score_there_ends_a_run_before_it_begins() -> None:
    def fails(output):
        return 1.0 / len(output[:0])

    broken = mmalign.rule(modalities={"text"}, range=(0.0, 1.0))(fails)()
    with serving({"broken": broken, "well": mmalign.load_reward("length")}) as (url, _):
        mmalign.load_reward("remote", url=url, served="well").prepare()
        there = mmalign.load_reward("remote", url=url, served="broken", attempts=1)
        with pytest.raises(ConfigError, match=r"'broken' does not score there"):
            there.prepare()


def test_the_token_comes_from_the_environment_and_is_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret-s3cret-s3cret")
    with serving({"served": mmalign.load_reward("length")}, token="s3cret-s3cret-s3cret") as (url, _):
        with pytest.raises(ConfigError, match="status 401"):
            mmalign.load_reward("remote", url=url)
        reward = mmalign.load_reward("remote", url=url, token="A_TOKEN")
        assert reward(captions_of(2)).valid.all()
        assert "s3cret" not in repr(vars(reward)) and b"s3cret" not in pickle.dumps(reward)
        assert pickle.loads(pickle.dumps(reward))(captions_of(1)).valid.all()  # noqa: S301 (our own)


def test_scores_are_remembered_by_what_the_server_scores_with(tmp_path: Any) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")

    def calls(url: str) -> float:
        guarded = Guarded("far", mmalign.load_reward("remote", url=url), cache=cache, monitor=True)
        guarded(Rollout.of(["p", "q"], ["a", "bb"]))
        return float(guarded.metrics().get("requests", 0))

    same, gate = mmalign.load_reward("length", high=4.0), threading.Lock()
    with gate, serving({"served": same}) as (url, served):
        assert [calls(url), calls(url)] == [1, 0]
        before = served["served"].described()["identity"]
    with serving({"served": mmalign.load_reward("length", high=5.0)}) as (_, other):
        assert before and other["served"].described()["identity"] != before
