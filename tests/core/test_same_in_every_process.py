"""What is computed does not hang on the process: Python salts `hash` of texts anew in each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["mmalign", "pipelines"])
def test_no_value_is_made_of_a_salted_hash(folder: str) -> None:
    """`hash(text)` differs from run to run; only a class's own `__hash__` may use it (it is never kept)."""
    salted = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        own = {
            call
            for method in ast.walk(tree)
            if isinstance(method, ast.FunctionDef) and method.name == "__hash__"
            for call in ast.walk(method)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "hash" and node not in own:
                salted.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not salted, "number them by dict.fromkeys, or digest them by mmalign.core.digests"
