"""`mmalign doctor`: does this machine have what mmalign needs? It reads versions; `--deep` imports and trains."""

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
    deep: Annotated[bool, typer.Option("--deep", help="import every package, and train one step per modality")] = False,
) -> None:
    """Check packages, extras, device, disk and embedded models; exit 1 if something that is needed is missing."""
    starting("importing every package and training a step per modality" if deep else "reading versions")
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
        for finding in findings:
            if finding["state"] == "missing":
                Console().print(f"[red]✗[/] {escape(finding['check'])}: {escape(finding['fix'])}")
        if not deep:
            Console().print("Versions were read; `mmalign doctor --deep` also imports every package and trains a step.")
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
    return {"check": check, "state": "ok" if good else "missing", "found": outcome} | (
        {} if good else {"fix": _fix(check)}
    )


def _fix(check: str) -> str:
    """What mends a red row, for the first part of its name that is known."""
    return next((way for part, way in FIXES.items() if part in check), f"pip install --force-reinstall {check}")


FIXES = {
    "tested ranges": "pip install --upgrade mmalign, which brings the packages of its ranges",
    "match one another": "install torch, torchvision and torchaudio of one release together, as the line above says",
    "python": "use Python 3.11 to 3.14",
    "device": "pip install --force-reinstall torch, of the build for this machine's driver",
    "disk": "free some space, or work where there is more (--out)",
    "compiled operators": "pip install --force-reinstall torchvision torchaudio, of the releases for your torch",
    "training step": "the command in this row shows all of it; if it is about memory, close other programs",
    "open_clip": "pip install --force-reinstall open-clip-torch",
}


def _attempt(name: str, check: Callable[[], str], needed: bool) -> Finding:
    try:
        return _finding(name, True, check())
    except Exception as error:  # whatever the import or the probe raises is the finding
        outcome = f"{type(error).__name__}: {error}"
        return _finding(name, False, outcome) | {"state": "missing" if needed else "optional"}


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


#: A step each: a picture and a sound by GRPO's and DRAGON's quickstart, a caption; nothing is measured or kept.
ONE, PAIR, APART = "trainer.prompts_per_step=1", "objective.group_size=2", "data.held_out_path=''"
STEPS = {
    "image": ("quickstart/image", [ONE, PAIR, "trainer.minibatches=1", APART]),
    "text": ("quickstart/text/captioner", [ONE, PAIR, "data.count=8", "data.held_out=1"]),
    "audio": ("quickstart/audio", ["trainer.prompts_per_step=4", "trainer.minibatches=1", APART]),
}
UNMEASURED = ["trainer.steps=1", "trainer.preview_every=0", "trainer.evaluate_every=0", "evaluation.count=1"]


def _train_step(modality: str) -> Callable[[], str]:
    """One update of the embedded model of a modality, from its run file to its checkpoint."""

    def check() -> str:
        import contextlib
        import io
        import tempfile
        import time

        from mmalign.cli.listing import configs
        from mmalign.run.train import train

        name, changes = STEPS[modality]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            done = train(configs()[name], [*UNMEASURED, *changes], out=Path(folder) / "run")
            loss = next(
                line for line in done.directory.metrics.read_text(encoding="utf-8").splitlines() if "grad/norm" in line
            )
            norm = json.loads(loss)["grad/norm"]
        if not norm or norm != norm:
            raise RuntimeError(f"the gradient is {norm}: mmalign train {name} trainer.steps=1")
        return f"{time.perf_counter() - start:.1f} s, gradient {norm:.3g} (mmalign train {name})"

    return check


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"cpu, {os.cpu_count()} cores (no CUDA device: small models only)"
    free, total = torch.cuda.mem_get_info()
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {bf16}"


def _embedded() -> str:
    from mmalign.core.files import WHERE_ASSETS_ARE, assets_root

    names = sorted(p.parent.name for p in assets_root().glob("*/provenance.json"))
    if not names:
        raise FileNotFoundError(f"none under {assets_root()}. {WHERE_ASSETS_ARE}")
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
    ("embedded models (quickstarts, tutorials)", _embedded, False),
)
DEEP: tuple[Check, ...] = (
    *((name, _import(name), True) for name in ("diffusers", "transformers", "peft", "accelerate", "open_clip")),
    ("compiled operators of torchvision and torchaudio", _operators, True),
    *((f"training step, {modality}", _train_step(modality), True) for modality in STEPS),
)
