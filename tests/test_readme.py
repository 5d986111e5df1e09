"""The README is short and its commands hold together; `docs/components.md` names what there is."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from mmalign.cli.main import application
from mmalign.run.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPONENTS, TOUR, INSTALL = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("components", "tour", "install")
)
PAGES = {"README": README, "tour": TOUR}


@pytest.mark.parametrize("kind", ["adapters", "policies", "rewards", "objectives", "data"])
def test_every_component_is_named(kind: str) -> None:
    assert [name for name in REGISTRIES[kind].names() if f"`{name}`" not in COMPONENTS] == []


def test_every_pipeline_is_named() -> None:
    assert [path.stem for path in (ROOT / "pipelines").glob("[a-z]*.py") if f"`{path.stem}`" not in COMPONENTS] == []


def test_every_extra_is_listed_with_who_needs_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for line in INSTALL.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}
    assert set(extras) - named == set()


def test_what_it_links_to_is_there() -> None:
    linked = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', README)
    assert len(linked) > 20 and [a or b for a, b in linked if not (ROOT / (a or b)).exists()] == []


def test_it_is_one_screen_and_a_half_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 80
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert [name for name in pages if f"(docs/{name})" not in README and f"({name})" not in COMPONENTS] == []


def code(page: str, language: str) -> str:
    """The first block of a language."""
    return page.split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_commands_is_there_or_made_by_one_before(page: str) -> None:
    block = next(part for part in PAGES[page].split("```")[1::2] if "mmalign list" in part)
    made = {"runs/a", "runs/b"}  # any two
    for line in (line.partition("#")[0] for line in block.splitlines()):
        words = line.replace(";", " ").split()
        named = [
            w.partition("=")[2] or w for w in words if re.search(r"^(\w+\.\w+=)?[\w/]+(\.(txt|jsonl|ya?ml|csv))?$", w)
        ]
        files = [word for word in named if re.search(r"\.(txt|jsonl|ya?ml|csv)$|^runs/", word)]
        made |= {words[i + 1] for i, word in enumerate(words[:-1]) if word in (">", "--out")}
        assert [file for file in files if file not in made and not (ROOT / file).exists()] == [], line
        if words[:2] == ["mmalign", "train"] and "--dry-run" not in words and words[2].endswith(".yaml"):
            made.add(f"runs/{words[2].removesuffix('.yaml')}")
        if words[:3] == ["mmalign", "miniworld", "make"]:
            made.add(f"{words[4]}/rows.jsonl")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_there_is(page: str) -> None:
    app = application()
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    block = next(part for part in PAGES[page].split("```")[1::2] if "mmalign list" in part)
    named = re.findall(
        r"(?:^|; +)mmalign (\w+)", "\n".join(line.partition("#")[0] for line in block.splitlines()), re.M
    )
    assert len(named) > 8 and set(named) - known == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_the_python_example_comes_from_somewhere(page: str) -> None:
    import ast
    import builtins

    tree = ast.parse(code(PAGES[page], "python"))
    known = {*dir(builtins), "mmalign"}
    known |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= known


def test_on_a_package_index_nothing_leads_nowhere() -> None:
    """Of `hatch_build.py` the function alone: building packages is no part of the tests' environment."""
    import ast

    tree = ast.parse((ROOT / "hatch_build.py").read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "for_an_index")
    found: dict[str, object] = {"re": re}
    exec(compile(ast.Module([function], []), "hatch_build.py", "exec"), found)
    shown = str(found["for_an_index"](f"{README}\n[kept](https://example.org/a) [gone](b.md)"))  # type: ignore[operator]
    linked = re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', shown)
    assert [a or b for a, b in linked if not (a or b).startswith("https://")] == []
    assert shown.endswith("[kept](https://example.org/a) gone") and "CONTRIBUTING" in shown
    assert len(shown.split()) > 0.8 * len(README.split())


def test_its_pictures_are_small_and_say_where_they_come_from() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((docs/images/[\w.]+)\)", README)
    assert shown and {ROOT / name for name in shown} == set((ROOT / "docs" / "images").glob("*.png"))
    for name in shown:
        picture = ROOT / name
        made = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
        assert picture.stat().st_size <= 60_000 and {"command", "commit", "seed", "made_by", "rows"} <= set(made)
        told = README.split(f"({name})")[1].split("\n\n")[1]  # the sentence below it
        command = told.split("`")[1]
        assert made["command"].startswith(command), told
        moved = re.search(r"(\w+)` went from ([−\d.]+) to ([−\d.]+) on (\d+)", told.partition("`")[2])
        (row,) = (row for row in made["rows"] if moved and row["name"] == moved[1])
        assert moved and tuple(float(moved[i].replace("−", "-")) for i in (2, 3)) == (
            round(row["before"], 2),
            round(row["after"], 2),
        )
        assert int(moved[4]) == row["n"]
