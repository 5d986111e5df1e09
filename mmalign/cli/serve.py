"""`mmalign serve`: rewards that other processes and machines ask over HTTP."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.errors import ConfigError, MissingExtra, importable
from mmalign.core.pace import starting

LEAST = 16  # characters of a token


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command("serve")(serve)


def serve(  # noqa: PLR0913 (its options)
    rewards: Annotated[
        list[str], typer.Argument(metavar="REWARD...", help="a name of `mmalign list rewards`, or NAME=REWARD")
    ],
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="an option; of several rewards NAME.KEY=VALUE"),
    ] = None,
    host: Annotated[str, typer.Option(help="where it listens; other than loopback needs a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8700,
    token_file: Annotated[Path | None, typer.Option(help="a file that holds the token that callers must send")] = None,
    token_env: Annotated[str, typer.Option(help="the environment variable that holds it")] = "",
    batch: Annotated[int, typer.Option(min=1, help="rows of one call of a reward, of several requests together")] = 64,
    wait_ms: Annotated[float, typer.Option(min=0, help="how long a batch waits for further requests")] = 2.0,
    max_rows: Annotated[int, typer.Option(min=1, help="of a request")] = 1024,
    max_bytes: Annotated[int, typer.Option(min=1024, help="of a request")] = 256 << 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="of a picture")] = 1 << 24,
    max_seconds: Annotated[float, typer.Option(min=0, help="of a sound")] = 600.0,
    probe: Annotated[Path | None, typer.Option(help="rows of which /health scores the first; else a small one")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1; the fastest by default")] = "",
    allow: Annotated[list[str] | None, typer.Option(help="modules that may be named as module:Class")] = None,
) -> None:
    """Serve rewards of rows to runs on other machines, which name them as the reward `remote`; Ctrl-C ends it."""
    starting(f"loading {', '.join(rewards)}")
    import torch

    from mmalign.core.config import override
    from mmalign.core.device import fastest
    from mmalign.rewards.models.wire import Limits
    from mmalign.run.serving.probe import given_probe
    from mmalign.run.serving.served import made, named_rewards

    if missing := [package for package in ("fastapi", "uvicorn") if not importable(package)]:
        raise MissingExtra(f"mmalign serve ({', '.join(missing)})", "serve")
    token = _token(host, token_file, token_env)
    wanted = named_rewards(rewards, override({}, options or []))
    row = given_probe(probe) if probe else None
    served = made(wanted, allow or (), torch.device(device) if device else fastest(), batch, wait_ms / 1000)
    listening = _listening(host, port)  # before what takes time to load
    for name, one in served.items():
        one.probe = row
        one.prepare()
        _tell(name, one.tried(_FIRST))
    limits = Limits(max_rows, max_bytes, max_pixels, max_seconds)
    try:
        _run(served, limits, token, listening)
    finally:
        for one in served.values():
            one.scorer.close()
            one.reward.close()


_FIRST = 600.0  # seconds for the first row, which may compile
_BACKLOG = 2048


def _token(host: str, file: Path | None, variable: str) -> str:
    """The token that callers must send; "" where there is none, which only loopback allows."""
    if file is not None and variable:
        raise ConfigError("--token-file, --token-env: name one of them.")
    if variable and variable not in os.environ:
        raise ConfigError(f"--token-env {variable}: the environment has no such variable.")
    place = f"--token-file {file}" if file is not None else f"--token-env {variable}"
    token = file.read_text(encoding="utf-8").strip() if file is not None else os.environ.get(variable, "").strip()
    if (file is not None or variable) and (len(token) < LEAST or not token.isascii() or not token.isprintable()):
        raise ConfigError(
            f"{place}: holds {len(token)} characters; a token has {LEAST} or more, all ASCII. Make one: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if not token and not _loopback(host):
        raise ConfigError(
            f"--host {host}: whoever reaches this machine could ask; name a token by --token-file or --token-env, or "
            "leave --host out."
        )
    return token


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def _listening(host: str, port: int) -> Any:
    """A socket that listens; ConfigError where there can be none."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the protocol is named; else each waits 40 ms for the next
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        why = error.strerror or error
        raise ConfigError(f"--host {host} --port {port}: cannot listen there ({why}); name another.") from None
    return listening


def _tell(name: str, tried: dict[str, Any]) -> None:
    took = f" in {tried['seconds']:g} s" if "seconds" in tried else ""
    why = f" ({tried['why']})" if "why" in tried else ""
    typer.echo(f"{name}: a row to try it: {tried['status']}{took}{why}")


def _run(served: Any, limits: Any, token: str, listening: Any) -> None:
    import uvicorn

    from mmalign.run.serving.app import reward_server

    config = uvicorn.Config(
        reward_server(served, limits, token),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    listening.listen(_BACKLOG)  # who reads the next line may ask at once
    host, port = listening.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    access = "with the token alone" if token else "without a token"
    typer.echo(f"http://{address} scores by {', '.join(served)}, {access}; Ctrl-C ends it.")
    uvicorn.Server(config).run(sockets=[listening])
