"""What the README says, for tests that hold it to what is committed."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing(table: str) -> list[str]:
    """The lines of a table that the README does not show."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for line in table.splitlines() if line not in readme]
