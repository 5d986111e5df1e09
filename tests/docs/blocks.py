"""The code blocks of a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def named_blocks(page: str) -> dict[str, str]:
    """The blocks of `page` whose first line is a comment with a file's name, by that name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return {name: code.lstrip("\n") for name, code in blocks}
