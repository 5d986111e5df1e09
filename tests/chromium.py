"""A page in headless Chromium, driven through its debugging pipe: no package and no port is needed.

The protocol is Chrome's DevTools Protocol: JSON messages that end with a zero byte, in through descriptor 3, out
through descriptor 4 (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Page", "opened", "require_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
)


def require_chromium() -> str:
    """Its path; the test is skipped where it is not installed."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("skipped: needs chromium")
    return found


class Page:
    """One tab."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._rest, self._number = reader, writer, b"", 0
        self._session = ""
        self.faults: list[str] = []  # what the page's console and its network said
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _next(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, until - time.monotonic()))
            assert ready, "chromium does not answer"
            part = os.read(self._reader, 1 << 20)
            assert part, "chromium ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = dict(json.loads(line))
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(params["entry"]["text"])

    def look(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of its window (below 600 that of a telephone) and the reader's colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code: str) -> Any:
        """What an expression is worth; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{code}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 60) -> Any:
        """Until an expression is true; returns what it is then."""
        until = time.monotonic() + seconds
        while not (found := self.run(code)):
            assert time.monotonic() < until, f"never true: {code}; {self.faults}"
            time.sleep(0.1)
        return found

    def press(self, key: str, code: str = "", number: int = 0) -> None:
        """A key, as a reader would press it."""
        number = number or (ord(key.upper()) if len(key) == 1 else 0)
        known = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path | str, whole: bool = True) -> None:
        """A screenshot, of the whole page or of what is seen."""
        clip: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def opened() -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block; it knows nothing of earlier ones."""
    program = require_chromium()
    to_read, to_write = os.pipe(), os.pipe()  # the browser reads the first, writes the second
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # the shell puts the two where the browser looks for them, whatever numbers they have here
        shell = f'exec "$0" "$@" 3<&{to_read[0]} 4>&{to_write[1]}'
        command = ["bash", "-c", shell, program, *QUIET, f"--user-data-dir={home}", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            command, pass_fds=(to_read[0], to_write[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read[0])
        os.close(to_write[1])
        try:
            yield Page(to_write[0], to_read[1])
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_write[0])
            os.close(to_read[1])
