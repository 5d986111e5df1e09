"""The README is short and its commands hold together; `docs/components.md` names what there is."""

import re
import tomllib
from pathlib import Path

import pytest

from mmalign.run.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPONENTS = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["adapters", "policies", "rewards", "objectives", "data"])
def test_every_component_is_named(kind: str) -> None:
    assert [name for name in REGISTRIES[kind].names() if f"`{name}`" not in COMPONENTS] == []


def test_every_pipeline_is_named() -> None:
    assert [path.stem for path in (ROOT / "pipelines").glob("[a-z]*.py") if f"`{path.stem}`" not in COMPONENTS] == []


def test_every_extra_is_listed_with_who_needs_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {name for line in README.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}
    assert set(extras) - named == set()


def test_what_it_links_to_is_there() -> None:
    linked = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', README)
    assert len(linked) > 6 and [a or b for a, b in linked if not (ROOT / (a or b)).exists()] == []


def test_it_is_read_in_minutes_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 120
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert [name for name in pages if f"(docs/{name})" not in README and f"({name})" not in COMPONENTS] == []


def code(language: str) -> str:
    """The first block of a language."""
    return README.split(f"```{language}\n")[1].split("```")[0]


def test_every_file_of_the_commands_is_there_or_made_by_one_before() -> None:
    block = next(part for part in README.split("```")[1::2] if "mmalign list" in part)
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


def test_every_name_of_the_python_example_comes_from_somewhere() -> None:
    import ast
    import builtins

    tree = ast.parse(code("python"))
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
    assert shown.endswith("[kept](https://example.org/a) gone") and "CONTRIBUTING.md" in shown
    assert len(shown.split()) > 0.8 * len(README.split())
