"""What `make docs` adds to the pages of this folder: the reference, made from the code, and links out of the folder.

README, CHANGELOG, CONTRIBUTING and STABILITY become pages; other files that a page links to are copied beside it.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "STABILITY.md": "stability.md",
    "mmalign/objectives/PAPERS.md": "objectives_papers.md",
}
_LINK = re.compile(r'(\]\(|(?:src|srcset)=")(?!https?:|#|data:)([^)"#\s]+)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference and the pages of the checkout's root."""
    for name, made in {**dict(reference_pages()), **dict(root_pages())}.items():
        files.append(File.generated(config, name, content=made))
    for name in sorted(linked_files(files)):
        files.append(File.generated(config, f"source/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of the folder to the copies in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        target = of_checkout(page.file.src_uri, match[2])
        if target is None or (ROOT / target).is_dir():
            return match[0]
        to = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}")
        return match[1] + posixpath.relpath(to, here or ".")

    return _LINK.sub(inside, markdown)


def of_checkout(page: str, link: str) -> str | None:
    """The path from the checkout's root that a link of a page means; None where it means nothing that is there."""
    homes = {made: posixpath.dirname(name) for name, made in PAGES.items()}
    home = homes.get(page, posixpath.join("docs", posixpath.dirname(page)))
    path = posixpath.normpath(posixpath.join(home, link))
    return path if (ROOT / path).exists() else None


def linked_files(files: Files) -> set[str]:
    """Files outside the folder that its pages, and those of the root, link to."""
    texts = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in PAGES.items()}
    texts |= {file.src_uri: file.content_string for file in files.documentation_pages() if not file.generated_by}
    links = ((page, match[2]) for page, text in texts.items() for match in _LINK.finditer(text))
    targets = {of_checkout(page, link) for page, link in links}
    return {
        name
        for name in targets
        if name and name not in PAGES and not name.startswith("docs/") and (ROOT / name).is_file()
    }


def root_pages() -> Iterator[tuple[str, str]]:
    """The pages of the checkout's root."""
    for name, page in PAGES.items():
        yield page, (ROOT / name).read_text(encoding="utf-8")


def reference_pages() -> Iterator[tuple[str, str]]:
    """One page for each kind of component, the run file, the commands and Python."""
    from mmalign.run.registries import REGISTRIES

    for kind, registry in REGISTRIES.items():
        yield f"reference/{kind}.md", components_page(kind, registry)
    yield "reference/run_file.md", run_file_page()
    yield "reference/commands.md", commands_page()
    yield "reference/python.md", python_page()


def components_page(kind: str, registry: Any) -> str:
    """Every component of a kind, by family, with its options."""
    from mmalign.run.component_docs import component_docs

    by_family: dict[str, list[str]] = {}
    for name in registry.names():
        by_family.setdefault(registry.family(name), []).append(name)
    lines = [f"# {kind.capitalize()}", ""]
    for family, names in sorted(by_family.items()):
        lines += [f"## {family}", ""] if family else []
        for name in names:
            docs = component_docs(registry.get(name))
            lines += [f"### {name}", "", f"`{docs.source}`", "", *prose(docs.prose), *option_table(docs.options)]
    return "\n".join(lines)


def prose(text: str) -> list[str]:
    """A docstring as Markdown: its sections (Raises, Returns, …) become lists, tables and blocks stay."""
    lines = []
    for block in text.split("\n\n"):
        if match := re.match(r"(Raises|Returns|Yields):\n", block):
            lines += [f"**{match[1]}**", "", inspect.cleandoc(block[match.end() :]).replace("\n", "  \n"), ""]
        elif block.startswith("    "):
            lines += ["```", inspect.cleandoc(block), "```", ""]
        else:
            lines += [block, ""]
    return lines


def option_table(options: Any) -> list[str]:
    """Options as a table."""
    if not options:
        return ["It takes no options.", ""]
    rows = [f"| `{o.name}` | {cell(f'`{o.default}`')} | {cell(o.values)} | {cell(o.meaning)} |" for o in options]
    return ["| option | default | values | meaning |", "|---|---|---|---|", *rows, ""]


def cell(text: str) -> str:
    """Text inside one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def run_file_page() -> str:
    """The typed sections of a run file."""
    from mmalign.core.config import Evaluation, Trainer
    from mmalign.run.component_docs import section_docs

    lines = [
        "# Run files",
        "",
        "A run file has a component each in `adapter`, `policy`, `objective` and `data` (a mapping with `name` and its "
        "options), named components in `rewards`, one way to `combine` them, and these typed sections.",
        "",
    ]
    for name, section in (("trainer", Trainer), ("evaluation", Evaluation)):
        docs = section_docs(section)
        lines += [f"## {name}", "", *prose(docs.prose), *option_table(docs.options)]
    return "\n".join(lines)


def commands_page() -> str:
    """Every command with its arguments and options."""
    import typer.main

    from mmalign.cli.main import application

    group = typer.main.get_command(application())
    lines = ["# Commands", ""]
    for name, command in all_commands(group):
        lines += [
            f"## mmalign {name}",
            "",
            *prose(inspect.cleandoc(command.help or "")),
            "| | values | meaning |",
            "|---|---|---|",
        ]
        kinds = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
        lines += [
            parameter_row(each, kinds.get(each.name or "", str)) for each in command.params if each.name != "help"
        ]
        lines.append("")
    return "\n".join(lines)


def parameter_row(parameter: Any, kind: Any) -> str:
    """An argument by its metavar, an option by its names."""
    from mmalign.run.component_docs import values

    named = parameter.opts if parameter.opts[0].startswith("-") else [parameter.metavar or parameter.name]
    return f"| {cell(', '.join(f'`{name}`' for name in named))} | {cell(values(kind))} | {cell(parameter.help or '')} |"


def all_commands(group: Any, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Commands and those below them, by what is typed."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def python_page() -> str:
    """What `import mmalign` offers."""
    import mmalign

    lines = ["# Python", "", *prose(inspect.cleandoc(mmalign.__doc__ or ""))]
    for name in mmalign.__all__:
        offered = getattr(mmalign, name)
        docs = inspect.getdoc(offered) if callable(offered) else None
        lines += [f"## {name}", "", f"`{getattr(offered, '__module__', 'mmalign')}`", ""]
        lines += ["```", signature_of(name, offered), "```", ""] if inspect.isfunction(offered) else []
        lines += ["```", docs, "```", ""] if docs else []
    return "\n".join(lines)


def signature_of(name: str, function: Any) -> str:
    """A function's signature, a parameter a line."""
    signature = inspect.signature(function)
    parameters = "".join(f"    {parameter},\n" for parameter in signature.parameters.values())
    return f"{name}(\n{parameters}) -> {inspect.formatannotation(signature.return_annotation)}"
