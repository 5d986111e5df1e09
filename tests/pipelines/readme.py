"""What the page of results says, for tests that hold it to what is committed."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing(table: str) -> list[str]:
    """The lines of a table that `docs/results.md` does not show; its links start one folder deeper."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("](../", "](")
    return [line for line in table.splitlines() if line not in page]
