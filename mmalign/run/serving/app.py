"""The addresses of a server of rewards: GET /spec, GET /health, POST /score.

Whoever asks is told what is wrong in a sentence, {"error": "…"}: 400 no message, 401 no token, 404 no such reward, 408
a message that does not arrive, 413 too large, 415 no JSON, 422 a fault of the reward's set-up, 429 too many at once. A
row that cannot be scored is no error: it has its status in the answer.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mmalign.core.errors import MmalignError, did_you_mean
from mmalign.rewards.engine.contract import describe_error
from mmalign.rewards.models.wire import PROTOCOL, Limits, Malformed, Request, TooLarge
from mmalign.rewards.models.wire_in import request_in, rollout_of
from mmalign.rewards.models.wire_out import scores_out
from mmalign.run.serving.batching import Scored
from mmalign.run.serving.served import Served

__all__ = ["Refused", "reward_server", "specification"]

HEALTH = 30.0  # seconds for the row that /health scores
ARRIVAL = 60.0  # seconds for a message to arrive
LOOK = 1.0  # seconds between two looks whether who asked is still there
WAITING = 4  # times the bytes of one message that may be under way at once


class Refused(Exception):
    """What is answered in the place of scores: a status and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


@dataclass
class _Room:
    """The bytes of messages that are under way; what would be more than `most` is sent away, unless it is alone."""

    most: int
    taken: int = 0

    @contextmanager
    def taken_by(self, size: int) -> Iterator[None]:
        """Inside it, `size` bytes are taken."""
        if self.taken and self.taken + size > self.most:
            raise Refused(429, "too many requests at once; come again.", **{"retry-after": "1"})
        self.taken += size
        try:
            yield
        finally:
            self.taken -= size


def reward_server(served: Mapping[str, Served], limits: Limits, token: str = "") -> Any:
    """The FastAPI application over rewards that are prepared; who does not send the `token` is told nothing."""
    from fastapi import FastAPI

    app = FastAPI(title="mmalign serve", version=version("mmalign"), docs_url=None, redoc_url=None, openapi_url=None)
    room, one_health = _Room(WAITING * limits.bytes), asyncio.Lock()

    async def spec(message: Any) -> Any:
        _require_token(message, token)
        return _json(specification(served, limits))

    async def health(message: Any) -> Any:
        _require_token(message, token)
        chosen = _chosen(message.query_params.get("reward", ""), served)
        async with one_health:  # who waits for a reward that hangs takes a thread
            tried = {name: await asyncio.to_thread(served[name].tried, HEALTH) for name in chosen}
        ok = all(one["ok"] for one in tried.values())
        return _json({"ok": ok, "rewards": tried}, 200 if ok else 503)

    async def score(message: Any) -> Any:
        _require_token(message, token)
        size = _size(message.headers, limits)
        with room.taken_by(size):
            body = await _body(message, size)
            name, answer = await asyncio.to_thread(_submitted, served, body, limits)
            return _json({"reward": name, "identity": served[name].identity, **await _answered(message, answer)})

    async def refuse(message: Any, refused: Exception) -> Any:
        assert isinstance(refused, Refused)
        return _json({"error": refused.sentence}, refused.status, refused.headers)

    async def elsewhere(message: Any, error: Exception) -> Any:
        return _json({"error": "there are GET /spec, GET /health and POST /score."}, getattr(error, "status_code", 404))

    async def broken(message: Any, error: Exception) -> Any:
        return _json({"error": describe_error(error)}, 500)

    app.add_route("/spec", spec, methods=["GET"])
    app.add_route("/health", health, methods=["GET"])
    app.add_route("/score", score, methods=["POST"])
    answers: dict[int | type[Exception], Any] = {Refused: refuse, 404: elsewhere, 405: elsewhere, Exception: broken}
    for kind, answer in answers.items():
        app.add_exception_handler(kind, answer)
    return app


def _json(answer: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse(answer, status, headers)


def specification(served: Mapping[str, Served], limits: Limits) -> dict[str, Any]:
    """What a server says of itself: versions, rewards, limits."""
    return {
        "mmalign": version("mmalign"),
        "protocol": PROTOCOL,
        "rewards": {name: one.described() for name, one in served.items()},
        "limits": vars(limits),
    }


def _require_token(message: Any, token: str) -> None:
    given = message.headers.get("authorization", "")
    if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        credential = "another token" if given else "no token"
        raise Refused(
            401, f"the request brings {credential}; send Authorization: Bearer TOKEN.", **{"www-authenticate": "Bearer"}
        )


def _size(headers: Mapping[str, str], limits: Limits) -> int:
    """The bytes that a message may have: what it says, or the most there may be."""
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send content-type: application/json.")
    length = headers.get("content-length", "")
    size = int(length) if length.isdecimal() else limits.bytes
    if size > limits.bytes:
        raise Refused(413, f"{size:,} bytes are more than the {limits.bytes:,} of a request; send fewer rows.")
    return size


async def _body(message: Any, size: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(ARRIVAL):
            async for piece in message.stream():
                body += piece
                if len(body) > size:
                    raise Refused(413, f"the message is longer than {size:,} bytes.")
    except TimeoutError:
        raise Refused(408, f"the message did not arrive within {ARRIVAL:g} s.") from None
    return bytes(body)


def _submitted(served: Mapping[str, Served], body: bytes, limits: Limits) -> tuple[str, Future[Scored]]:
    """The reward's name and its answer to come, of a message that is looked at as a whole first."""
    try:
        request = request_in(body)
        name = _named(request, served)
        return name, served[name].scorer.submit(rollout_of(request, limits))
    except TooLarge as error:
        raise Refused(413, str(error)) from None
    except Malformed as error:
        raise Refused(400, str(error)) from None


def _chosen(name: str, served: Mapping[str, Served]) -> list[str]:
    """The reward called so, or all of them."""
    if name and name not in served:
        raise Refused(404, f"no reward '{name}' is served.{did_you_mean(name, served)} Served are {', '.join(served)}.")
    return [name] if name else list(served)


def _named(request: Request, served: Mapping[str, Served]) -> str:
    chosen = _chosen(request.reward, served)
    if len(chosen) > 1:
        raise Refused(404, f"reward: name one. Served are {', '.join(served)}.")
    name = chosen[0]
    modalities = served[name].reward.modalities
    if request.output.kind not in modalities:
        raise Refused(
            422, f"'{name}' judges {' and '.join(sorted(modalities))}; these outputs are {request.output.kind}."
        )
    return name


async def _answered(message: Any, answer: Future[Scored]) -> dict[str, Any]:
    """The scores; rows of who has gone are not begun, so that a run that was killed holds no other back."""
    waiting = asyncio.ensure_future(asyncio.wrap_future(answer))
    while not (await asyncio.wait({waiting}, timeout=LOOK))[0]:
        if await message.is_disconnected():
            waiting.cancel()
            raise Refused(400, "who asked has gone.")
    try:
        scored = waiting.result()
    except MmalignError as error:
        raise Refused(422, str(error)) from None
    return {**scores_out(scored.scores), "batch": scored.rows, "seconds": round(scored.seconds, 6)}
