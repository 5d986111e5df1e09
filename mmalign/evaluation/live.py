"""The report of a run that goes on, served on this machine: made anew whenever the run has written something.

Three addresses are answered and nothing else is read: `/` and `/page`, the report, and `/state`, which names the state
of the directory.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mmalign.evaluation.progress import progress_of
from mmalign.evaluation.report.page import report_html
from mmalign.evaluation.run_record import read_numbers, read_run

__all__ = ["LivePage", "server"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WRITTEN = ("run.yaml", "environment.json", "metrics.jsonl", "summary.json", "alarms.jsonl", "in_use.json")


class LivePage:
    """What is served of a run directory; the report is made once per state of the directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._made: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()

    def version(self) -> str:
        """A name of what the run has written so far: other files, sizes or times, another name."""
        paths = [self.run / name for name in WRITTEN]
        paths += sorted([*(self.run / "samples").glob("step_*"), *(self.run / "evaluation").glob("*/done")])
        seen = []
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue
            seen.append((path.name, status.st_size, status.st_mtime_ns))
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]

    def page(self) -> bytes:
        """The report as it stands."""
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                self._made = version, report_html(read_run(self.run), live=version).encode()
            return self._made[1]

    def state(self) -> bytes:
        """The name of the state, and how far the run is, as JSON."""
        progress = progress_of(read_numbers(self.run))
        return json.dumps({"version": self.version(), "state": progress.state, "sentence": progress.sentence}).encode()


def server(run: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page of `run`, not yet started; port 0 is any that is free.

    On this machine alone (`host` is 127.0.0.1 or localhost) it answers only those who asked for this machine by such a
    name: a page of another site that a browser shows cannot read it.

    Raises:
        OSError: it cannot listen there.
    """
    live = LivePage(run)
    answers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": ("text/html; charset=utf-8", live.page),
        "/page": ("text/html; charset=utf-8", live.page),
        "/state": ("application/json", live.state),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = answers.get(self.path.partition("?")[0])
            if host in LOOPBACK and _host_of(self.headers.get("Host", "")) not in LOOPBACK:
                self.send_error(403, "this page is for this machine")
            elif known is None:
                self.send_error(404, "only / is served here")
            else:
                self._send(*known)

        def _send(self, kind: str, made: Callable[[], bytes]) -> None:
            body = made()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal belongs to the run."""

    made = ThreadingHTTPServer((host, port), Handler)
    made.daemon_threads = True
    return made


def _host_of(header: str) -> str:
    """The name in a `Host` header, without its port."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
