"""The tests' own order: folders as in the package, what several files use in modules."""

import ast
import tomllib
from pathlib import Path

import mmalign

TESTS = Path(__file__).parent
PACKAGE = Path(mmalign.__path__[0])
BESIDE = {"benchmarks", "docs", "fuzz", "gpu", "pipelines"}  # of no folder of the package


def test_no_file_takes_from_another_file_of_tests() -> None:
    for file in TESTS.rglob("*.py"):
        modules = [
            node.module or "" for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
        ]
        taken = [name for name in modules if name.startswith("tests.") and name.split(".")[-1].startswith("test_")]
        assert not taken, f"{file.relative_to(TESTS)} imports {taken}: move what both use to a module"


def test_folders_are_those_of_the_package() -> None:
    for folder in (path for path in TESTS.rglob("test_*.py")):
        inside = folder.parent.relative_to(TESTS)
        if inside.parts and inside.parts[0] not in BESIDE:
            assert (PACKAGE / inside).is_dir(), f"tests/{inside} has no folder mmalign/{inside}"


def test_an_import_inside_the_package_must_lead_somewhere() -> None:
    """mypy passes over missing modules of other packages alone, each by its name."""
    options = tomllib.loads((TESTS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    passed_over = [
        name for part in options["overrides"] if part.get("ignore_missing_imports") for name in part["module"]
    ]
    assert passed_over and not options.get("ignore_missing_imports")
    assert not {"import", "import-untyped", "import-not-found"} & {*options.get("disable_error_code", [])}
    own = {"mmalign", "tests", "pipelines", "*"}
    assert [name for name in passed_over if name.split(".")[0] in own] == []
