"""The description on a package index: the README without what only a checkout can show.

Links and pictures of the README lead to files beside it, which an index does not have: a link becomes its words, a
picture is left out. Links to other addresses stay.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Sets `project.readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Give the description of this checkout's, or source distribution's, README."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_an_index(text)}


def for_an_index(text: str) -> str:
    """The README with relative links as words, and without relative pictures."""
    text = re.sub(r'<img src="(?!https?:)[^>]*>[ ]*', "", text)
    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)
    return re.sub(r"\n{3,}", "\n\n", text)
