"""A server that is asked by HTTP within bounds: of time, attempts, bytes, calls at once.

What cannot be had is `Unanswered`, with why. Tried again, after a pause that doubles (or that the server asks for,
within the deadline): no connection, a broken answer, 408, 409, 425, 429 and 5xx. All else would fail again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

from mmalign.core.asked import note_requests
from mmalign.core.packages import need
from mmalign.rewards.models.deadline import Network

__all__ = ["Endpoint", "Server", "Unanswered"]

Item = TypeVar("Item")
Made = TypeVar("Made")
_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
_MOST = 4 << 20  # bytes of an answer
_SHOWN = 160  # characters of a server's own words


class Unanswered(Exception):
    """No answer, and why; `late` where the deadline has passed."""

    def __init__(self, why: str, late: bool = False) -> None:
        super().__init__(why)
        self.late = late


@dataclass
class Server:
    """Where a server is, and how patiently it is asked.

    Args:
        url: the address before what is asked for: "http://localhost:8000/v1".
        key: the name of the environment variable that holds the key, or "": no key is sent.
        deadline: seconds for an answer, all attempts and pauses together.
        attempts: how often a question is asked at most.
        pause: seconds before the second attempt; they double.
        concurrency: questions that are under way at once.
    """

    url: str
    key: str = ""
    deadline: float = 60.0
    attempts: int = 4
    pause: float = 0.5
    concurrency: int = 8

    def faults(self, place: str, key: str = "key") -> list[str]:
        """A sentence for each option that makes no sense, `place` before its name; `key` is what keys are called."""
        faults = []
        if not self.url.startswith(("http://", "https://")):
            faults.append(f"{place}url: {self.url!r} is no address; write http://HOST:PORT…")
        if self.key and self.key not in os.environ:
            faults.append(f"{place}{key}: the environment has no variable {self.key}; set it to the server's {key}.")
        faults += [
            f"{place}{name}: {getattr(self, name)} must be at least 1."
            for name in ("attempts", "concurrency")
            if getattr(self, name) < 1
        ]
        if not self.deadline > 0:
            faults.append(f"{place}deadline: {self.deadline:g} must be positive.")
        if not self.pause >= 0:
            faults.append(f"{place}pause: {self.pause:g} must be at least 0.")
        return faults


@dataclass(frozen=True)
class _Try:
    """One attempt: the answer, or why there is none, how long to wait, and whether another would be of no use."""

    answer: dict[str, Any] | None
    why: str = ""
    wait: float = 0.0
    final: bool = False
    late: bool = False


@dataclass
class Endpoint:
    """Asks a `Server`; answers of more than `most` bytes are none.

    `counts` has what was asked: "requests", "retries", and the "prompt_tokens" and "completion_tokens" of servers that
    say them. So has `mmalign.core.asked`.
    """

    server: Server
    most: int = _MOST
    counts: Counter[str] = field(default_factory=Counter)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without connections: another process makes its own."""
        return {"server": self.server, "most": self.most, "counts": self.counts}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take up what `__getstate__` gave."""
        self.__dict__.update(state, _lock=Lock())

    @cached_property
    def _network(self) -> Network:
        return Network()

    @cached_property
    def _connections(self) -> Any:
        return need("httpcore").ConnectionPool(
            max_connections=self.server.concurrency, keepalive_expiry=4.0, network_backend=self._network
        )

    def ask(self, method: str, path: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The server's answer, which is a JSON object. Raises Unanswered."""
        answer = self._tried(method, path, None if request is None else json.dumps(request).encode())
        if isinstance(usage := answer.get("usage"), dict):
            tokens = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
            self._count({name: count for name, count in tokens.items() if isinstance(count, int) and count >= 0})
        return answer

    def each(self, call: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
        """`call` of every item, `concurrency` at once."""
        if len(items) <= 1:
            return [call(item) for item in items]
        contexts = [copy_context() for _ in items]  # what a thread asks is counted where it was sent from
        with ThreadPoolExecutor(max(1, min(self.server.concurrency, len(items)))) as calls:
            return list(calls.map(lambda context, item: context.run(call, item), contexts, items))

    def _count(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self.counts.update(counts)
        note_requests(counts)

    def _tried(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        end, pause = time.monotonic() + self.server.deadline, self.server.pause
        for attempt in range(1, self.server.attempts + 1):
            self._count({"requests" if attempt == 1 else "retries": 1})
            tried = self._once(method, path, body, end)
            if tried.answer is not None:
                return tried.answer
            wait = max(pause, tried.wait)
            if tried.final or attempt == self.server.attempts or time.monotonic() + wait >= end:
                tries = f" (asked {attempt} times)" if attempt > 1 else ""
                raise Unanswered(f"{self.server.url}: {tried.why}{tries}", tried.late)
            time.sleep(wait)
            pause *= 2
        raise AssertionError("a server is asked at least once")

    def _once(self, method: str, path: str, body: bytes | None, end: float) -> _Try:
        core, begun = need("httpcore"), False
        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": "mmalign"}
        headers |= {"authorization": f"Bearer {os.environ[self.server.key]}"} if self.server.key else {}
        url, waiting = self.server.url.rstrip("/") + path, {"timeout": {"pool": max(end - time.monotonic(), 1e-3)}}
        try:
            with (
                self._network.until(end),
                self._connections.stream(method, url, headers=headers, content=body, extensions=waiting) as response,
            ):
                data, begun = bytearray(), True
                for piece in response.iter_stream():
                    data += piece
                    if len(data) > self.most:
                        return _Try(None, f"its answer is longer than {self.most >> 20} MiB", final=True)
        except core.TimeoutException:
            what = "no whole answer" if begun else "no answer"
            return _Try(None, f"{what} within {self.server.deadline:g} s", final=True, late=True)
        except (core.NetworkError, core.ProtocolError, core.UnsupportedProtocol) as error:
            return _Try(None, f"{type(error).__name__}: {str(error)[:_SHOWN]}")
        if response.status != 200:
            why = f"status {response.status}: {_words(bytes(data))}"
            return _Try(None, why, _retry_after(response.headers), final=response.status not in _AGAIN)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            return _Try(None, f"its answer is no JSON: {bytes(data[:_SHOWN])!r}")
        return _Try(answer) if isinstance(answer, dict) else _Try(None, "its answer is no object", final=True)


def _words(data: bytes) -> str:
    """What a server says of its own fault: its "error", where it is such JSON, else the beginning."""
    with suppress(ValueError, RecursionError):
        if isinstance(answer := json.loads(data), dict) and isinstance(answer.get("error"), str):
            return answer["error"][: 4 * _SHOWN].rstrip(".")
    return data[: 4 * _SHOWN].decode("utf-8", "replace").strip()[:_SHOWN]


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float:
    """The seconds of a Retry-After header; 0 without one."""
    given = next((value for name, value in headers if name.lower() == b"retry-after"), b"0")
    try:
        return max(0.0, float(given))
    except ValueError:  # a date
        return 0.0
