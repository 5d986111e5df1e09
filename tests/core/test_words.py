"""Names say what they hold or do: participles that say nothing of it stay few."""

import ast
from collections import Counter
from pathlib import Path

import mmalign

RETIRED = {"found", "said", "told", "asked", "heard"}
#: `Evaluated.asked`, which users read.
FEW = 1


def made(tree: ast.AST) -> list[str]:
    """Every name that is assigned, is a parameter, a function, a class or an attribute that is set."""
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    names += [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return names + [
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]


def test_names_say_what_they_hold() -> None:
    files = Path(mmalign.__path__[0]).rglob("*.py")
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    uses = Counter(
        {file: sum(bool(RETIRED & {*name.split("_")}) for name in made(tree)) for file, tree in trees.items()}
    )
    assert sum(uses.values()) <= FEW, f"write what it is; most in {uses.most_common(3)}"
