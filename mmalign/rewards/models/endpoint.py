"""An OpenAI-compatible server of chat completions, asked within bounds: of time, attempts, bytes, calls at once.

What cannot be had is `Unanswered`, with why. Tried again, after a pause that doubles (or that the server asks for,
within the deadline): no connection, a broken answer, 408, 409, 425, 429 and 5xx. All else would fail again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.packages import need

__all__ = ["Endpoint", "Server", "Unanswered"]

_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
_MOST = 4 << 20  # bytes of an answer
_SHOWN = 160  # characters of a server's own words


class Unanswered(Exception):
    """No answer, and why."""


@dataclass
class Server:
    """Where a judge answers, and how patiently it is asked.

    Args:
        url: where chat completions are, up to and without "/chat/completions": "http://localhost:8000/v1".
        key: the name of the environment variable that holds the key, or "": no key is sent.
        deadline: seconds for an answer, all attempts and pauses together.
        attempts: how often a question is asked at most.
        pause: seconds before the second attempt; they double.
        concurrency: questions that are under way at once.
        samples: 0 reads the log-probs of the first token; for servers that give none, so many answers are drawn at
            temperature 1 and counted.
    """

    url: str
    key: str = ""
    deadline: float = 60.0
    attempts: int = 4
    pause: float = 0.5
    concurrency: int = 8
    samples: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not self.url.startswith(("http://", "https://")):
            faults.append(f"judge.server.url: {self.url!r} is no address; write http://HOST:PORT/v1.")
        if self.key and self.key not in os.environ:
            faults.append(f"judge.server.key: the environment has no variable {self.key}; set it to the server's key.")
        for name, least in (("attempts", 1), ("concurrency", 1), ("samples", 0)):
            if getattr(self, name) < least:
                faults.append(f"judge.server.{name}: {getattr(self, name)} must be at least {least}.")
        if not (self.deadline > 0 and self.pause >= 0):
            faults.append("judge.server: deadline must be positive, and pause at least 0.")
        if faults:
            raise ConfigError(faults)


@dataclass
class Endpoint:
    """Asks a `Server`; `counts` has what was asked: "requests", "retries", "prompt_tokens", "completion_tokens"."""

    server: Server
    counts: Counter[str] = field(default_factory=Counter)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without connections: another process makes its own."""
        return {"server": self.server, "counts": self.counts}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take up what `__getstate__` gave."""
        self.__dict__.update(state, _lock=Lock())

    @cached_property
    def _client(self) -> Any:
        client = need("httpx")
        headers = {"Authorization": f"Bearer {os.environ[self.server.key]}"} if self.server.key else {}
        return client.Client(headers=headers, follow_redirects=False, trust_env=False)

    def models(self) -> list[str]:
        """The names of the models that it serves. Raises Unanswered."""
        answer = self._request("GET", "/models", None)
        return [str(entry.get("id")) for entry in answer.get("data", []) if isinstance(entry, dict)]

    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a request of chat completions. Raises Unanswered."""
        answer = self._request("POST", "/chat/completions", request)
        usage = answer.get("usage")
        with self._lock:
            for name in ("prompt_tokens", "completion_tokens"):
                if isinstance(usage, dict) and isinstance(usage.get(name), int):
                    self.counts[name] += usage[name]
        return answer

    def _request(self, method: str, path: str, request: Mapping[str, Any] | None) -> dict[str, Any]:
        end, pause = time.monotonic() + self.server.deadline, self.server.pause
        for attempt in range(1, self.server.attempts + 1):
            with self._lock:
                self.counts["requests" if attempt == 1 else "retries"] += 1
            answer, why, wait = self._once(method, path, request, end)
            if answer is not None:
                return answer
            again = wait >= 0
            wait = max(pause, wait)
            if not again or attempt == self.server.attempts or time.monotonic() + wait >= end:
                tries = f" (asked {attempt} times)" if attempt > 1 else ""
                raise Unanswered(f"{self.server.url}: {why}{tries}")
            time.sleep(wait)
            pause *= 2
        raise AssertionError("a server is asked at least once")

    def _once(
        self, method: str, path: str, request: Mapping[str, Any] | None, end: float
    ) -> tuple[dict[str, Any] | None, str, float]:
        """The answer, or None with why there is none and how long to wait: -inf, for ever."""
        httpx = need("httpx")
        try:
            left = max(end - time.monotonic(), 1e-3)
            url = self.server.url.rstrip("/") + path
            with self._client.stream(method, url, json=request, timeout=left) as response:
                body = b""
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MOST:
                        return None, f"its answer is longer than {_MOST >> 20} MiB", float("-inf")
                    if time.monotonic() > end:
                        return None, f"no whole answer within {self.server.deadline:g} s", float("-inf")
        except httpx.TimeoutException:
            return None, f"no answer within {self.server.deadline:g} s", float("-inf")
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {str(error)[:_SHOWN]}", 0.0
        if response.status_code != 200:
            words = body[: 4 * _SHOWN].decode("utf-8", "replace").strip()[:_SHOWN]
            wait = _retry_after(response.headers) if response.status_code in _AGAIN else float("-inf")
            return None, f"status {response.status_code}: {words}", wait
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return None, f"its answer is no JSON: {body[:_SHOWN]!r}", 0.0
        return (answer, "", 0.0) if isinstance(answer, dict) else (None, "its answer is no object", float("-inf"))


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds of a Retry-After header; 0 without one."""
    try:
        return max(0.0, float(headers.get("retry-after", "0")))
    except ValueError:  # a date
        return 0.0
