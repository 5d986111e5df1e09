"""Where the answer stands in an output, and in a column that holds a worked solution: the one rule for all rewards."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from mmalign.rewards.parsing.tags import inner
from mmalign.rewards.parsing.text import Unreadable, bounded

Where = Literal["auto", "answer", "boxed", "hashes", "whole"]

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,9}")
_MARK = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,9}\{|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^####[ \t]*(\S.*)$")


def answer_of(text: str, where: Where = "auto") -> str:
    """The part of an output that answers, never the thinking before it.

    | where | the answer is what stands |
    |---|---|
    | `answer` | inside `<answer>…</answer>`, which must occur once; inside the last box there, if it holds one |
    | `boxed` | inside the last `\\boxed{…}` or `\\fbox{…}`, and inside a box that is all there |
    | `hashes` | behind `####` on the last line, as in GSM8K |
    | `whole` | behind the thinking, all of it |
    | `auto` | as `answer` where the output uses its tags, else as `boxed` where it has a box, else as `whole` |

    Of several boxes the last counts, as in the graders of MATH (Hendrycks et al. 2021) and in verl; tags that occur
    twice are refused, for the prompts that ask for them ask for one pair.

    Args:
        text: one output, without its prompt (an `<answer>` in the instructions is not the model's).
        where: see the table.

    Raises:
        Unreadable: the part is missing, doubled or empty, the thinking never ends, or the output does not.
    """
    answer = behind_thinking(bounded(text))
    if where == "answer" or (where == "auto" and ("<answer>" in answer or "</answer>" in answer)):
        answer = inner(answer, "answer")
        answer = _boxed(answer) if _BOX.search(answer) else answer
    elif where == "boxed" or (where == "auto" and _BOX.search(answer)):
        answer = _boxed(answer)
    elif where == "hashes":
        answer = _behind_hashes(answer)
    return bounded(answer)


def solution_of(text: str) -> str:
    """The answer that a column gives: behind `####` of its last line, inside its last box, else the whole text.

    Raises:
        Unreadable: nothing is there.
    """
    solution = bounded(text)
    if _HASHES.match(_last_line(solution)):
        return bounded(_behind_hashes(solution))
    return bounded(_boxed(solution)) if _BOX.search(solution) else solution


def behind_thinking(text: str) -> str:
    """What follows the last `</think>`; all of the text where there is none. Unreadable if the thinking never ends."""
    _, closed, after = text.rpartition("</think>")
    if "<think>" in after:
        raise Unreadable("the thinking never ends: <think> without </think>")
    return after if closed else text


def _behind_hashes(text: str) -> str:
    if (match := _HASHES.match(_last_line(text))) is None:
        raise Unreadable("the last line does not begin with ####")
    return match[1]


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


def _boxed(text: str) -> str:
    """What the last box holds: the last to be opened, or the outermost that holds it."""
    boxes = _boxes(text)
    if not boxes:
        raise Unreadable("no \\boxed{…} in the answer")
    if boxes[-1].last < 0:
        raise Unreadable("\\boxed{ is never closed")
    at = len(boxes) - 1
    for place in range(at - 1, -1, -1):
        at = place if boxes[place].last > boxes[at].last else at
    while at + 1 < len(boxes) and _holds_only(text, boxes[at], boxes[at + 1]):
        at += 1
    return text[boxes[at].first : boxes[at].last]


class _Box(NamedTuple):
    """Places in a text: of the command, of the first character inside, of the brace that closes it (-1: none does)."""

    start: int
    first: int
    last: int


def _holds_only(text: str, outer: _Box, within: _Box) -> bool:
    around = text[outer.first : within.start], text[within.last + 1 : outer.last]
    return within.last < outer.last and not any(part.strip() for part in around)


def _boxes(text: str) -> list[_Box]:
    """Every box with braces, in the order in which they open; `\\{` and `\\}` are no braces."""
    boxes: list[_Box] = []
    braces: list[int] = []  # those still open: the place of their box, or -1
    for mark in _MARK.finditer(text):
        if mark[0] == "}":
            if braces and (place := braces.pop()) >= 0:
                boxes[place] = boxes[place]._replace(last=mark.start())
        elif mark[0] == "{":
            braces.append(-1)
        elif mark[0].endswith("{") and mark[0] != "\\{":
            braces.append(len(boxes))
            boxes.append(_Box(mark.start(), mark.end(), -1))
    return boxes
