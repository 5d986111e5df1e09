"""XML-like tags: the frame of an answer, and what stands inside one."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.rewards.parsing.text import Unreadable


def framed(text: str, tags: Sequence[str], free_end: bool = False) -> bool:
    """Is `text` exactly `<a>…</a> <b>…</b> …` for the tags a, b, … in order, each once, with only blanks between?

    Args:
        text: the whole output.
        tags: names without brackets.
        free_end: any text may follow the last element.
    """
    rest = text.strip()
    if any(rest.count(f"<{tag}>") != 1 or rest.count(f"</{tag}>") != 1 for tag in tags):
        return False
    for tag in tags:
        if not rest.startswith(f"<{tag}>"):
            return False
        rest = rest[rest.find(f"</{tag}>") + len(tag) + 3 :].lstrip() if f"</{tag}>" in rest else ""
    return free_end or not rest


def inner(text: str, tag: str) -> str:
    """What the one `<tag>…</tag>` of `text` holds; Unreadable unless there is exactly one."""
    start, end = f"<{tag}>", f"</{tag}>"
    if text.count(start) != 1 or text.count(end) != 1:
        raise Unreadable(f"expected {start}…{end} once, found {text.count(start)} and {text.count(end)} of its tags")
    first, last = text.find(start) + len(start), text.find(end)
    if last < first:
        raise Unreadable(f"{end} stands before {start}")
    return text[first:last]
