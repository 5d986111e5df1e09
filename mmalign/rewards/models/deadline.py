"""Connections all of whose waits end at one deadline: a server that sends a byte now and then keeps nobody for ever.

A time limit of a single read starts anew with every byte. Here each thread sets when its request ends, and every read,
write and connection of that thread gets what is left until then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmalign.core.packages import need

__all__ = ["Network"]

_PIECE = 1 << 16  # bytes that are written between two looks at the clock


class _Clock(threading.local):
    end = float("inf")


class Network:
    """The network of httpcore (a `NetworkBackend`), within the deadline of the thread that uses it."""

    def __init__(self) -> None:
        self._core, self._clock = need("httpcore"), _Clock()
        self._inner = self._core.SyncBackend()

    @contextmanager
    def until(self, end: float) -> Iterator[None]:
        """Inside it, what this thread does on the network ends at `end` of `time.monotonic`."""
        self._clock.end = end
        try:
            yield
        finally:
            self._clock.end = float("inf")

    def left(self) -> float:
        """Seconds until the deadline; raises httpcore.ReadTimeout behind it."""
        left = self._clock.end - time.monotonic()
        if left <= 0:
            raise self._core.ReadTimeout("the deadline has passed")
        return min(left, threading.TIMEOUT_MAX)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        """Connect to a host."""
        return _Stream(self._inner.connect_tcp(host, port, self.left(), **options), self)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._inner.sleep(min(seconds, self.left()))


class _Stream:
    """A connection (a `NetworkStream`) within the deadline."""

    def __init__(self, inner: Any, network: Network) -> None:
        self._inner, self._network = inner, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[start : start + _PIECE], self._network.left())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._network.left()), self._network)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
