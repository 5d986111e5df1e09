"""`mmalign convert`: pickled weights as safetensors, once, where you trust them. Nothing else here unpickles a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.pace import starting


def register(app: typer.Typer) -> None:
    """Add `convert`."""
    app.command("convert")(convert)


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="pickled weights: .pt, .pth, .bin, .ckpt")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="the file to write")],
    trust: Annotated[bool, typer.Option("--trust", help="unpickle it, which runs whatever code is in it")] = False,
) -> None:
    """Write the tensors of a pickled state dict as safetensors; without --trust only if no code can run."""
    starting(f"reading {file}")
    from safetensors.torch import save_file

    from mmalign.core.files import write_beside
    from mmalign.rewards.models.pickled import read_pickled, tensors_of

    if out.suffix != ".safetensors":
        raise ConfigError(f"{out}: the result is a .safetensors file.")
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    content = _unpickled(file) if trust else read_pickled(file)
    try:
        tensors, left = tensors_of(content)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    with write_beside(out) as beside:  # each on its own: safetensors refuses tensors that share memory
        save_file({name: value.clone().contiguous() for name, value in tensors.items()}, beside, {"format": "pt"})
    rest = f"; left out, no tensors: {', '.join(left[:8])}{', …' if len(left) > 8 else ''}" if left else ""
    typer.echo(f"{len(tensors)} tensors of {file}: {out}{rest}")


def _unpickled(file: Path) -> Any:
    """Everything in `file`, its code included: only ever where its owner says so on the command line."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: cannot be unpickled here ({type(error).__name__}: {words}).") from None
