"""`mmalign list` and `mmalign show`: what there is, and an editable, fully defaulted run file."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
from collections.abc import Collection
from dataclasses import replace
from difflib import get_close_matches
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
    """List adapters, policies, rewards, combinations, objectives, data sources, annotators and ready run files."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mmalign.run.registries import REGISTRIES

    kinds = [*REGISTRIES, "configs"]
    if kind and kind not in kinds:
        raise ConfigError(f"nothing is listed under '{kind}'.{did_you_mean(kind, kinds)} Known: {', '.join(kinds)}.")
    console = Console()
    for each in [kind] if kind else kinds:
        if each == "configs":
            tables = {each: {name: _first_comment(path) for name, path in configs().items()}}
        else:
            tables = _by_family(each, REGISTRIES[each])
        for title, lines in tables.items():
            table = Table("name", "what it is", title=title, title_justify="left", title_style="bold", box=None)
            for name, line in lines.items():
                table.add_row(escape(name), escape(line))
            console.print(table)


def show(
    name: Annotated[str, typer.Argument(help="a name from `mmalign list`: a ready run file, a component; or a file")],
    of_kind: Annotated[str, typer.Argument(metavar="[COMPONENT]", help="after a kind (reward, adapter, …)")] = "",
) -> None:
    """Print a run file with every default filled in (redirect it to a file and edit), or a component's options.

    `mmalign show reward clip` shows the reward of that name; `mmalign show clip` whatever is called so.
    """
    from mmalign.core.config import dump, load
    from mmalign.run.build import build
    from mmalign.run.references import needs_base

    kind, _, own = (name, " ", of_kind) if of_kind else name.rpartition("/")
    if of_kind:
        _require_component(kind, own)
    is_run = not of_kind and (Path(name).is_file() or name in configs())
    if not is_run and (described := _described(kind, own)):
        typer.echo("\n\n".join(described))
        return
    path = find_config(name)
    parts = build(load(path))
    run = parts.filled()
    if comment := head_comment(path):
        typer.echo(comment)
    typer.echo(dump(run if needs_base(run, parts.source) else replace(run, base="")), nl=False)


def _described(kind: str, name: str) -> list[str]:
    """What the component `name` is and takes: of a `kind`, in the singular or plural; of each that has one if it is "".

    Empty where there is none.
    """
    from mmalign.cli._describe import describe_component
    from mmalign.run.registries import REGISTRIES

    own = {plural: each for plural, each in REGISTRIES.items() if kind in ("", plural, each.kind)}
    return [describe_component(plural, name, each.get(name)) for plural, each in own.items() if name in each.names()]


def _require_component(kind: str, name: str) -> None:
    """Raise ConfigError: there is no such kind, or none of it is called `name`."""
    from mmalign.run.registries import REGISTRIES

    plurals = {registry.kind: plural for plural, registry in REGISTRIES.items()}
    if (plural := plurals.get(kind, kind)) not in REGISTRIES:
        near = did_you_mean(kind, [*plurals, *REGISTRIES])
        raise ConfigError(f"no kind of component is called '{kind}'.{near} Known: {', '.join(plurals)}.")
    REGISTRIES[plural].get(name)


def configs_root() -> Path:
    """Return the folder of ready run files: a source checkout's `configs/` or the installed copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "_configs"


def configs() -> dict[str, Path]:
    """Ready run files by name ("folder/file" without the suffix)."""
    root = configs_root()
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """Return the file `name`, or the ready run file of that name."""
    if Path(name).is_file():
        return Path(name)
    known = configs()
    short = [each for each in known if each.rpartition("/")[2] == name]
    if len(short) == 1:
        return known[short[0]]
    if name not in known:
        which = f" There are {', '.join(short)}." if short else _near(name, known)
        if Path(name).is_dir():
            which = f" It is a folder; of a run, name {Path(name) / 'run.yaml'}."
        raise ConfigError(f"no file and no ready run file is called '{name[:200]}'.{which}")
    return known[name]


def _near(name: str, known: Collection[str]) -> str:
    """The ready run file whose name, or whose name without its folder, is nearest, by the name that finds it."""
    ends = {each.rpartition("/")[2]: each for each in known}
    near = get_close_matches(name, [*known, *ends], n=1, cutoff=0.5)
    return f" Did you mean '{ends.get(near[0], near[0])}'?" if near else ""


def _by_family(kind: str, registry: Registry) -> dict[str, dict[str, str]]:
    """The first lines of a registry's components under "kind", or under "kind/family" where it has families."""
    tables: dict[str, dict[str, str]] = {f"{kind}/{family}": {} for family in registry.families} or {kind: {}}
    for name in registry.names():
        family = registry.family(name)
        title = f"{kind}/{family}" if family else f"{kind} of other packages" if registry.families else kind
        tables.setdefault(title, {})[name] = _first_line(registry, name)
    return tables


def _first_line(registry: Registry, name: str) -> str:
    """The first sentence of a component's docstring, read without importing it; a plugin's with where it is from."""
    from mmalign.core.registry import origin

    if points := registry.plugins().get(name):
        clash = " (the name is taken twice: it cannot be used)" if registry.clash(name) else ""
        return f"{_docstring(points[0].module)} [{', '.join(map(origin, points))}]{clash}".strip()
    return _docstring(registry.built_in()[name])


def _docstring(module: str) -> str:
    """The first sentence of a module's docstring; nothing of it is run."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return ""
        text = Path(spec.origin).read_text(encoding="utf-8")
        return first_sentence((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0])
    except (ImportError, OSError, ValueError, SyntaxError):
        return ""


def head_comment(path: Path) -> str:
    """Return the comment that a run file begins with: what it is for, the columns it reads, the machine it needs."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return "\n".join(lines)


def first_sentence(text: str) -> str:
    """Return the first sentence of a paragraph, on one line; all of one that has no end."""
    line = " ".join(text.split())
    return re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!et al\.) +(?=[A-Z0-9`(])", line, maxsplit=1)[0]


def _first_comment(path: Path) -> str:
    return first_sentence(" ".join(line.removeprefix("#").strip() for line in head_comment(path).splitlines()))
