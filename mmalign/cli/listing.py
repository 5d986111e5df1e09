"""`mmalign list` and `mmalign show`: what there is, and an editable, fully defaulted run file."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from mmalign.core.registry import Registry


def register(app: typer.Typer) -> None:
    """Add `list` and `show`."""
    app.command("list")(list_components)
    app.command("show")(show)


def list_components(kind: Annotated[str, typer.Argument(help="one kind, or nothing for all")] = "") -> None:
    """List adapters, policies, rewards, combinations, objectives, data sources and ready run files."""
    from rich.console import Console
    from rich.table import Table

    from mmalign.run.registries import REGISTRIES

    kinds = [*REGISTRIES, "configs"]
    if kind and kind not in kinds:
        raise ConfigError(f"nothing is listed under '{kind}'.{did_you_mean(kind, kinds)} Known: {', '.join(kinds)}.")
    console = Console()
    for each in [kind] if kind else kinds:
        table = Table("name", "what it is", title=each, title_justify="left", title_style="bold", box=None)
        if each == "configs":
            for name, path in configs().items():
                table.add_row(name, _first_comment(path))
        else:
            for name in REGISTRIES[each].names():
                table.add_row(name, _first_line(REGISTRIES[each], name))
        console.print(table)


def show(config: Annotated[str, typer.Argument(help="a name from `mmalign list configs`, or a file")]) -> None:
    """Print a run file with every default filled in; redirect it to a file and edit."""
    from mmalign.core.config import dump, load
    from mmalign.run.build import build
    from mmalign.run.references import needs_base

    parts = build(load(find_config(config)))
    run = parts.filled()
    typer.echo(dump(run if needs_base(run, parts.source) else replace(run, base="")), nl=False)


def configs_root() -> Path:
    """The folder of ready run files: a source checkout's `configs/` or the installed copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "_configs"


def configs() -> dict[str, Path]:
    """Ready run files by name ("folder/file" without the suffix)."""
    root = configs_root()
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """The file `name`, or the ready run file of that name."""
    if Path(name).is_file():
        return Path(name)
    known = configs()
    if name not in known:
        raise ConfigError(f"no file and no ready run file is called '{name}'.{did_you_mean(name, known)}")
    return known[name]


def _first_line(registry: Registry, name: str) -> str:
    """The first line of a component file's docstring, read without importing it."""
    spec = importlib.util.find_spec(f"{registry.package}.{name}")
    if spec is None or spec.origin is None:
        return "(plugin)"
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
