"""Pages are valid, self-contained, and let nothing but their own script run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from mmalign.evaluation import report
from mmalign.evaluation.report.detail import LARGEST

__all__ = ["Checked", "checked"]

VOID, SHAPES = {"meta", "link", "img", "input"}, {"circle", "line", "polyline"}
PAGE = Path(report.__file__).parent


class Checked(HTMLParser):
    """Fails on unbalanced tags; collects what the page would ask a network for, its ids, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.prompt_pictures: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        assert tag not in ("iframe", "object") and (tag != "script" or not given)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.links.append(str(given["href"]))
        elif source := given.get("src") or given.get("href"):
            self.prompt_pictures += [] if source.startswith("data:") else [source]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in SHAPES, f"<{tag}/> does not close itself in HTML"

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(path: Path) -> tuple[str, Checked]:
    html = path.read_text(encoding="utf-8")
    parser = Checked()
    parser.feed(html.replace("<wbr>", ""))  # names that may be broken there are still one word
    parser.close()
    assert parser.open == []
    assert parser.prompt_pictures == [] and "url(" not in html and "@import" not in html
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert scripts == [(PAGE / "page.js").read_text(encoding="utf-8")]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in html
    )
    assert len(parser.ids) == len(set(parser.ids))
    for link in parser.links:
        assert link.removeprefix("#") in parser.ids or link.startswith("https://arxiv.org/abs/")
    assert len(html.encode()) < LARGEST
    return html, parser
