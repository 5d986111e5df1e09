"""A server of rewards on a free port of loopback, in a thread of this process; and requests written by hand."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpcore
import torch
import uvicorn

from mmalign.core.types import Prompt
from mmalign.rewards.engine.call import Guarded
from mmalign.rewards.models.wire import Limits
from mmalign.run.serving.app import reward_server
from mmalign.run.serving.batching import Scorer
from mmalign.run.serving.served import Served


@contextmanager
def serving(
    rewards: Mapping[str, Any],
    limits: Limits = Limits(),  # noqa: B008
    token: str = "",
    batch: int = 64,
    wait: float = 0.0,
) -> Iterator[tuple[str, dict[str, Served]]]:
    """The address of a server of these rewards, and what it serves."""
    served = {
        name: Served(name, Scorer(Guarded(name, reward, monitor=True), torch.device("cpu"), batch, wait))
        for name, reward in rewards.items()
    }
    for one in served.values():
        one.prepare()
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        reward_server(served, limits, token),
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", served
    finally:
        server.should_exit = True
        thread.join(10)
        for one in served.values():
            one.scorer.close()
            one.reward.close()


def asked(url: str, method: str, path: str, message: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer of one request."""
    given: dict[str | bytes, str | bytes] = {
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    body = message if isinstance(message, bytes | type(None)) or hasattr(message, "__next__") else json.dumps(message)
    body = body.encode() if isinstance(body, str) else body
    response = httpcore.request(method, url + path, headers=given, content=body)
    return response.status, json.loads(response.content)


def texts(*outputs: str, reward: str = "") -> dict[str, Any]:
    """A request about texts, as somebody writes it by hand."""
    prompts = [{"text": f"p{row}"} for row in range(len(outputs))]
    output = {"kind": "text", "texts": list(outputs)}
    return {"protocol": 1, "reward": reward, "prompts": prompts, "prompt": [*range(len(outputs))], "output": output}


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"a red circle {row // 2}", meta={"answer": row, "near": [1.5, None, "x"]}) for row in range(count)]
