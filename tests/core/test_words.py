"""Names of variables say what they hold: participles that say nothing of it stay few."""

import ast
from collections import Counter
from pathlib import Path

import mmalign

RETIRED = {"found", "said", "told", "asked"}
FEW = 20


def assigned(tree: ast.AST) -> list[str]:
    """Every name that is assigned or is a parameter."""
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return names + [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]


def test_variables_are_named_after_what_they_hold() -> None:
    files = Path(mmalign.__path__[0]).rglob("*.py")
    uses = Counter({file: sum(name in RETIRED for name in assigned(ast.parse(file.read_text()))) for file in files})
    assert sum(uses.values()) <= FEW, f"write what it is; most in {uses.most_common(3)}"
