"""Every write of the package is whole or absent: it goes by way of `write_beside` or `write_folder_beside`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmalign

ROOT = Path(mmalign.__file__).parent
WRITING = {"write_text", "write_bytes", "save_file", "write_table", "to_parquet", "rename", "save_pretrained"}
BESIDE = {"write_beside", "write_folder_beside"}
#: What is no whole file by its nature: a log that grows by lines, folders that move, the helper itself.
ALLOWED = {
    ("run/directory.py", "append_metrics"),
    ("run/directory.py", "append"),
    ("annotators/_file.py", "annotate_file"),  # a journal of lines, of which a broken last one is left out
    ("run/directory.py", "_set_aside"),
    ("core/files.py", "write_folder_beside"),
    ("core/files.py", "remove_folder"),
    ("core/files.py", "recover"),
}


def own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it, which are looked at by themselves."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef):
            yield node
            yield from own(node)


def roots(node: ast.expr) -> set[str]:
    """The variables that an expression is made from."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def writes(function: ast.FunctionDef) -> Iterator[tuple[ast.Call, set[str]]]:
    """Calls that write, each with the variables that name where."""
    for call in own(function):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = roots(call.func.value) if isinstance(call.func, ast.Attribute) else set()
        modes = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
        opened = name == "open" and any(isinstance(m, str) and set(m) & set("wax+") and len(m) < 4 for m in modes)
        if name in WRITING or opened:
            yield call, owner.union(*(roots(argument) for argument in call.args))


def handed_in(function: ast.FunctionDef) -> set[str]:
    """Where a caller said to write, and what was opened beside its place."""
    given = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)} - {"self", "cls"}
    for node in own(function):
        if isinstance(node, ast.With):
            for item in node.items:
                if roots(item.context_expr) & BESIDE and isinstance(item.optional_vars, ast.Name):
                    given.add(item.optional_vars.id)
    for node in own(function):  # names made from those
        if isinstance(node, ast.Assign) and roots(node.value) & given:
            given |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.For) and roots(node.iter) & given:
            given |= roots(node.target)
    return given


def bypasses(source: str, file: str) -> list[str]:
    """The writes that go to a place that nobody handed in."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and (file, function.name) not in ALLOWED:
            known = handed_in(function)
            found += [f"{file}:{call.lineno}" for call, where in writes(function) if not where & known]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_written_in_place(path: Path) -> None:
    assert bypasses(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "line",
    [
        "(self.path / 'x').write_text('1')",
        "Path('x').write_bytes(b'1')",
        "open('x', 'w').write('1')",
        "self.metrics.open('a')",
        "save_file({}, self.path / 'x')",
        "self.path.rename(self.other)",
    ],
)
def test_a_write_in_place_is_found(line: str) -> None:
    assert bypasses(f"def f(self):\n    {line}\n", "any.py") == ["any.py:2"]
    assert bypasses(f"def f(self):\n    with write_beside(self.path) as beside:\n        {line}\n", "any.py")
    good = "def f(self):\n    with write_beside(self.path) as beside:\n        (beside / 'x').write_text('1')\n"
    assert bypasses(good, "any.py") == []
