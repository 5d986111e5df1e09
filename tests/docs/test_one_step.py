"""docs/one_step.md names the files that a step of each kind passes, no other, and functions that it calls there."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from tests.docs.blocks import DOCS
from tests.docs.chains import CHAINS, Call, files

ROW = re.compile(r"^\| `([\w/]+\.py)` \| (.+?) \| .+ \|$", flags=re.MULTILINE)
LOOP, BASES = "Common: the loop", "Common: records and bases"
TITLES = {"Pictures": "GRPO on pictures", "Texts": "DPO on texts", "Sound": "DRAGON on sound"}


def sections() -> dict[str, dict[str, list[str]]]:
    """The functions of every file by the heading it stands under."""
    parts = re.split(r"^## (.+)$", (DOCS / "one_step.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    bodies = dict(zip(parts[::2], parts[1::2], strict=True))
    return {title: {f: re.findall(r"`(.+?)`", names) for f, names in ROW.findall(t)} for title, t in bodies.items()}


def called(name: str, file: str, chain: Iterable[Call]) -> bool:
    """Is `name` a function of the chain's file, a method by its own name, or a class with a method in it?"""
    functions = [function for place, function in chain if place == file]
    return any(f == name or f.endswith(f".{name}") or f.startswith(f"{name}.") for f in functions)


def unknown(rows: dict[str, list[str]], chain: Iterable[Call]) -> list[str]:
    """What the page names and the chain does not call."""
    return [f"{file}: {name}" for file, names in rows.items() for name in names if not called(name, file, chain)]


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Call]]:
    """Every chain, traced once."""
    return {name: trace(tmp_path_factory.mktemp(name) / "model") for name, trace in CHAINS.items()}


def test_the_page_has_a_section_for_each_chain() -> None:
    assert list(sections()) == [LOOP, BASES, *CHAINS]


@pytest.mark.parametrize("name", CHAINS)
def test_the_page_names_the_files_that_the_step_passes(name: str, chains: dict[str, list[Call]]) -> None:
    page = sections()
    common = page[LOOP] | page[BASES]
    passed, named = files(chains[name]), common | page[name]
    assert sorted(set(passed) - set(named)) == []  # passed, and not on the page
    assert sorted(set(named) - set(passed)) == []  # on the page, and not passed
    assert unknown(page[name], chains[name]) == []
    assert f"| {TITLES[name]} | {len(passed)} | {len(common)} |" in (DOCS / "one_step.md").read_text(encoding="utf-8")


def test_what_is_common_is_called_by_some_step(chains: dict[str, list[Call]]) -> None:
    page = sections()
    assert unknown(page[LOOP] | page[BASES], [call for chain in chains.values() for call in chain]) == []
