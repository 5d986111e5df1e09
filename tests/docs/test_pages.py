"""Pages say what is so: metrics are those of the table, and every link and file that is named is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.metrics_page import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_metrics_is_the_table() -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == page(), (
        "python -m tests.docs.metrics_page > docs/metrics.md"
    )


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_links_to_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    linked = [a or b for a, b in re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', text)]
    named = re.findall(r"`((?:mmalign|pipelines|tests|configs|assets)/[\w./-]+)`", text)
    assert [link for link in linked if not (DOCS / link).exists()] == []
    assert [name for name in named if not (DOCS.parent / name).exists()] == []


def test_every_figure_of_the_results_has_its_command_and_its_file() -> None:
    """Each row of a table of runs links a JSON file that names a command."""
    rows = re.findall(r"^\| \[\w+\]\(([^)]+\.json)\)", (DOCS / "results.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(set(rows)) == 31
    for name in rows:
        text = (DOCS / name).read_text(encoding="utf-8")
        assert '"command"' in text and '"commit"' in text, name
