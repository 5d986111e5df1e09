"""A server of OpenAI's chat completions over a judge that is loaded here, and one that fails in the ways servers do."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from mmalign.core.types import Audio, Prompt
from mmalign.media.audio import decode_samples
from mmalign.rewards.models.judge import Judge

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@contextmanager
def serving(
    reply: Reply, models: Sequence[str] = (), pages: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server on a free port of loopback, and the requests that it has had.

    `pages` are what it says where nothing is posted, by the end of the address; of others, which models it has.
    """
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            page = self.path.partition("?")[0].rpartition("/")[2]
            send(self, (pages or {}).get(page, {"data": [{"id": name} for name in models]}))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append({**request, "key": self.headers.get("authorization", "")})
            reply(self, request)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, answer: Any, status: int = 200, **headers: str) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    handler.send_response(status)
    for name, value in {"content-length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def said(*table: tuple[str, float]) -> dict[str, Any]:
    """An answer with log-probs of the first token."""
    top = [{"token": token, "logprob": logprob} for token, logprob in table]
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}], "usage": usage}


def of_judge(judge: Judge) -> Reply:
    """The log-probs of a judge's own model, of what the request holds: all of them, for toys know few words."""
    lock = threading.Lock()

    def reply(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        with lock, torch.no_grad():
            question = asked(request["messages"][0]["content"])
            inputs = judge.model.encode([question])
            logits = judge.model.logits(judge.model.begin(inputs, torch.zeros(1, dtype=torch.long), 0).features)
            log_probs = logits[0].float().log_softmax(-1)
        tokens = [judge.model.texts.tokenizer.decode([i]) for i in range(len(log_probs))]
        send(handler, said(*zip(tokens, log_probs.tolist(), strict=True)))

    return reply


def asked(content: Any) -> Prompt:
    """The question behind a message's content."""
    if isinstance(content, str):
        return Prompt(content)
    media: dict[str, Any] = {}
    for part in content:
        if part["type"] == "image_url":
            from PIL import Image
            from torchvision.transforms.functional import pil_to_tensor

            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            media["image"] = pil_to_tensor(Image.open(io.BytesIO(data))).float() / 255
        if part["type"] == "input_audio":
            samples, rate = decode_samples(base64.b64decode(part["input_audio"]["data"]), "asked")
            media["audio"] = Audio(torch.as_tensor(samples)[None].float(), rate)
    return Prompt(content[-1]["text"], media)


def stalls(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    time.sleep(30)


def drips(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """A byte now and then: no single wait is long."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def drips_headers(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """The same, and the answer does not begin."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    with suppress(OSError):
        for _ in range(300):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)


def promises_more(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": ')
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    send(handler, json.dumps(said(("yes", -0.1))).encode()[:40])


def endless(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    send(handler, b'{"choices": "' + b"x" * (5 << 20) + b'"}')


def dies(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    handler.connection.close()
    handler.close_connection = True
