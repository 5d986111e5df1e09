"""Where the answer stands in an output."""

from __future__ import annotations

from typing import Literal

from mmalign.rewards.parsing.tags import inner
from mmalign.rewards.parsing.text import Unreadable, bounded

Where = Literal["auto", "answer", "boxed", "whole"]


def answer_of(text: str, where: Where = "auto") -> str:
    """The part of an output that answers, never the thinking before it.

    Args:
        text: one output, without its prompt (an `<answer>` in the instructions is not the model's).
        where: `answer`, inside `<answer>…</answer>`, which must occur once; `boxed`, inside the last `\\boxed{…}`;
            `whole`, all that follows the thinking; `auto`, the first of these that the output uses.

    Raises:
        Unreadable: the part is missing, doubled or empty, the thinking never ends, or the output does not.
    """
    said = _after_thinking(bounded(text))
    if where == "answer" or (where == "auto" and ("<answer>" in said or "</answer>" in said)):
        said = inner(said, "answer")
    elif where == "boxed" or (where == "auto" and "\\boxed{" in said):
        said = _boxed(said)
    return bounded(said)


def _after_thinking(text: str) -> str:
    _, closed, after = text.rpartition("</think>")
    if "<think>" in after:
        raise Unreadable("the thinking never ends: <think> without </think>")
    return after if closed else text


def _boxed(text: str) -> str:
    start = text.rfind("\\boxed{")
    if start < 0:
        raise Unreadable("no \\boxed{…} in the answer")
    depth, first = 1, start + len("\\boxed{")
    for at in range(first, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[first:at]
    raise Unreadable("\\boxed{ is never closed")
