"""A public function's name is defined once in the package: who reads a call knows which one is called."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import mmalign

ROOT = Path(mmalign.__file__).parent
#: What every module of a kind defines under one name, as a protocol does for classes.
BY_CONTRACT = {
    "register": "every command adds itself to the command line by it",
    "main": "what `python -m` of a module runs",
}
#: Each world of the miniworld has its own, and a caller names the world.
OF_BOTH_WORLDS = {
    *("clause_holds", "distinct_requests", "hard_negatives", "heldout_requests", "holds", "make_request", "parse"),
    *("render", "restatements", "sample_request", "train_requests", "unseen_compositions", "verify", "verify_batch"),
    "write_prompt_files",
}
#: A reward is named after the measure that it computes.
PUBLIC_NAMES = {"rank_agreement", "relaxed_accuracy"}


def defined() -> dict[str, list[str]]:
    """Every public top-level function, by its name."""
    places = defaultdict(list)
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(ROOT)))
    return places


def test_no_two_functions_share_a_name_but_those_that_are_listed() -> None:
    allowed = {*BY_CONTRACT, *OF_BOTH_WORLDS, *PUBLIC_NAMES}
    assert {name for name, files in defined().items() if len(files) > 1} == allowed  # none that is listed in vain


def test_what_trains_says_which_part_of_it() -> None:
    places = defined()
    assert places["train"] == ["run/train.py"] == [f"{mmalign.train.__module__.replace('.', '/')}.py"[8:]]
    assert places["training_loop"] == ["training/loop.py"] and places["train_command"] == ["cli/train.py"]
