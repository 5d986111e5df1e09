"""The README names what there is."""

import re
from pathlib import Path

import pytest

from mmalign.run.registries import REGISTRIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["adapters", "policies", "rewards", "objectives", "data"])
def test_every_component_is_named(kind: str) -> None:
    assert [name for name in REGISTRIES[kind].names() if f"`{name}`" not in README] == []


def test_every_pipeline_is_named() -> None:
    assert [path.stem for path in (ROOT / "pipelines").glob("[a-z]*.py") if f"`{path.stem}`" not in README] == []


def test_what_it_links_to_is_there() -> None:
    linked = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', README)
    assert len(linked) > 30 and [a or b for a, b in linked if not (ROOT / (a or b)).exists()] == []
