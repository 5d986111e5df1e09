"""A server that answers what huggingface_hub asks of the Hub when it makes a repository and sends a commit."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["StandIn", "stand_in"]


@dataclass
class StandIn:
    """What was asked, and what is there now; with `refuse` every request is answered by that status."""

    url: str = ""
    refuse: int = 0
    created: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)  # by the oid of large files
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """What the Hub would say, as JSON; None where it knows no such address."""
        self.asked.append(f"{method} {path}")
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            name = f"{json.loads(body)['organization']}/{json.loads(body)['name']}"
            return {"url": f"{self.url}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            kinds = {True: "lfs", False: "regular"}
            return {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": kinds[f["path"].endswith((".safetensors", ".png"))],
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return {
                "transfer": "basic",
                "objects": [{**o, "actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in objects],
            }
        if path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = body
            return {}
        if "/commit/" in path:
            return self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)
        return None

    def _commit(self, name: str, body: bytes) -> Any:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                blob = self.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                self.files[value["path"]] = blob
        return {"commitUrl": f"{self.url}/{name}/commit/0", "commitOid": "0" * 40, "success": True}


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A running one, on this machine."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = None if hub.refuse else hub.answer(self.command, self.path.partition("?")[0], body)
            status = hub.refuse or (404 if answer is None else 200)
            text = json.dumps(answer if status == 200 else {"error": "not for you"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = _any

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
