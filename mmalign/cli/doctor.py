"""`mmalign doctor`: does this machine have what mmalign needs? It reads versions; `--deep` imports and runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from mmalign.core.pace import starting

Finding = dict[str, str]
MARKS = {"ok": "[green]✓[/]", "missing": "[red]✗[/]", "optional": "[yellow]–[/]"}


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command("doctor")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="import every package and run what is compiled")] = False,
) -> None:
    """Check packages, extras, device, disk and embedded models; exit 1 if something that is needed is missing."""
    starting("importing every package" if deep else "reading versions")
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = [*_versions(), *_extras(), *(_attempt(*check) for check in (*QUICK, *(DEEP if deep else ())))]
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    else:
        table = Table("", "check", "found", box=None)
        for finding in findings:
            table.add_row(MARKS[finding["state"]], escape(finding["check"]), escape(finding["found"]))
        Console().print(table)
        if not deep:
            Console().print("Versions were read; `mmalign doctor --deep` also imports every package.")
    if any(finding["state"] == "missing" for finding in findings):
        raise typer.Exit(1)


def _versions() -> list[Finding]:
    """The packages that mmalign cannot do without: their ranges, and whether they match one another."""
    from mmalign.core.packages import installed, mismatches, outside_ranges, transformers_wants_peft

    outside = outside_ranges()
    shown = ("torch", "torchvision", "torchaudio", "transformers", "diffusers", "peft", "accelerate", "open-clip-torch")
    versions = ", ".join(f"{name} {installed(name)}" for name in shown)
    advice = "; ".join(outside) + ": reinstall with pip install --upgrade mmalign" if outside else versions
    findings = [_finding("packages in the tested ranges", not outside, advice)]
    pairs = mismatches()
    findings.append(
        _finding(
            "packages match one another", not pairs, " ".join(pairs.values()) or "every pair that is known to break"
        )
    )
    if wanted := transformers_wants_peft():
        findings.append({"check": "LoRAs by plain transformers", "state": "optional", "found": wanted})
    return findings


def _extras() -> Iterable[Finding]:
    """Each extra of mmalign's own metadata: its packages, or how to install them."""
    from mmalign.core.packages import extras

    for extra, missing in extras().items():
        status = "installed" if not missing else f"without {', '.join(missing)}: pip install 'mmalign[{extra}]'"
        yield {"check": f"extra '{extra}' (optional)", "state": "ok" if not missing else "optional", "found": status}


def _finding(check: str, good: bool, outcome: str) -> Finding:
    return {"check": check, "state": "ok" if good else "missing", "found": outcome}


def _attempt(name: str, check: Callable[[], str], needed: bool) -> Finding:
    try:
        return _finding(name, True, check())
    except Exception as error:  # whatever the import or the probe raises is the finding
        outcome = f"{type(error).__name__}: {error}"
        return {"check": name, "state": "missing" if needed else "optional", "found": outcome}


def _python() -> str:
    return sys.version.split()[0]


def _import(module: str) -> Callable[[], str]:
    def check() -> str:
        import importlib

        importlib.import_module(module)
        return "imports"

    return check


def _operators() -> str:
    import torch
    import torchaudio
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where the two were built for different torches
    torchaudio.functional.lfilter(torch.zeros(1, 8), torch.ones(2), torch.ones(2))
    return "run"


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"cpu, {os.cpu_count()} cores (no CUDA device: small models only)"
    free, total = torch.cuda.mem_get_info()
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {bf16}"


def _embedded() -> str:
    from mmalign.core.files import assets_root

    names = sorted(p.parent.name for p in assets_root().glob("*/provenance.json"))
    if not names:
        raise FileNotFoundError(
            f"none under {assets_root()}; make them with `python -m pipelines.miniworld` in a source checkout"
        )
    return ", ".join(names)


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 1:
        raise RuntimeError(f"{free:.1f} GiB free here; checkpoints may not fit")
    return f"{free:.0f} GiB free here"


Check = tuple[str, Callable[[], str], bool]
QUICK: tuple[Check, ...] = (
    ("python", _python, True),
    ("device", _device, True),
    ("disk", _disk, True),
    ("embedded models", _embedded, True),
)
DEEP: tuple[Check, ...] = (
    *((name, _import(name), True) for name in ("diffusers", "transformers", "peft", "accelerate", "open_clip")),
    ("compiled operators of torchvision and torchaudio", _operators, True),
)
