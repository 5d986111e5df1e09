"""`mmalign doctor`: does this machine have what mmalign needs? It imports and runs, rather than reads versions."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Check packages, device, disk and embedded models; exit 1 if something that is needed is missing."""
    from rich.console import Console
    from rich.table import Table

    findings = [_attempt(name, check, needed) for name, check, needed in CHECKS]
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    else:
        table = Table("", "check", "found", box=None)
        marks = {"ok": "[green]✓[/]", "missing": "[red]✗[/]", "optional": "[yellow]–[/]"}
        for finding in findings:
            table.add_row(marks[finding["state"]], finding["check"], finding["found"])
        Console().print(table)
    if any(finding["state"] == "missing" for finding in findings):
        raise typer.Exit(1)


def _attempt(name: str, check: Callable[[], str], needed: bool) -> dict[str, str]:
    try:
        return {"check": name, "state": "ok", "found": check()}
    except Exception as error:  # whatever the import or the probe raises is the finding
        return {
            "check": name,
            "state": "missing" if needed else "optional",
            "found": f"{type(error).__name__}: {error}",
        }


def _python() -> str:
    return sys.version.split()[0]


def _package(module: str) -> Callable[[], str]:
    def check() -> str:
        import importlib

        return str(getattr(importlib.import_module(module), "__version__", "imports"))

    return check


def _torch_trio() -> str:
    import torch
    import torchaudio
    import torchvision

    versions = [module.__version__.split("+")[0] for module in (torch, torchvision, torchaudio)]
    if versions[0].split(".")[:2] != versions[2].split(".")[:2]:
        raise RuntimeError(
            f"torch {versions[0]} and torchaudio {versions[2]} do not match; reinstall with mmalign's pins"
        )
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where the two were built for different torches
    return "torch {}, torchvision {}, torchaudio {}".format(*versions)


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"cpu, {os.cpu_count()} cores (no CUDA device: small models only)"
    free, total = torch.cuda.mem_get_info()
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {bf16}"


def _embedded() -> str:
    from mmalign.core.files import assets_root

    found = sorted(p.parent.name for p in assets_root().glob("*/provenance.json"))
    if not found:
        raise FileNotFoundError(f"none under {assets_root()}; make them with `mmalign miniworld train`")
    return ", ".join(found)


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 1:
        raise RuntimeError(f"{free:.1f} GiB free here; checkpoints may not fit")
    return f"{free:.0f} GiB free here"


CHECKS: list[tuple[str, Callable[[], str], bool]] = [
    ("python", _python, True),
    ("torch, torchvision, torchaudio agree", _torch_trio, True),
    *((name, _package(name), True) for name in ("diffusers", "transformers", "peft", "accelerate", "open_clip")),
    *((f"{name} (optional)", _package(name), False) for name in ("laion_clap", "gradio", "trackio", "wandb")),
    ("device", _device, True),
    ("disk", _disk, True),
    ("embedded models", _embedded, True),
]
