"""Partial credit for tool calls (ToolRL, Qian et al. 2025, 2504.13958; `rlla.py` of its repository).

With names, parameter names g and values of true calls G and predicted calls P:

    S = J(names) + Σ_g max over unused p of g's name of [ J(keys_g, keys_p) + #{k: p[k] = g[k]} ]
    S_max = 1 + Σ_g (1 + |parameters of g|)
    value = S / S_max,  1 where G = P

Values are equal as JSON: true is not 1, which it is to ToolRL's own code.

J is the multiset Jaccard index. ToolRL scales the value to [-3, 3].
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch

from mmalign.rewards.functional.matching import assign

Call = Mapping[str, Any]  # {"name": str, "parameters": mapping}
Credit = Literal["fine", "refined", "intermediate", "coarse"]

_CALLS, _RESPONSE = r"(?:\n<tool_call>\n(?:(?!</?tool_call>).)*\n</tool_call>)+", r"\n<response>.*</response>"


def multiset_jaccard(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """|intersection| / |union| with multiplicity, in [0, 1]; 1 for equal sequences, two empty ones included."""
    if list(first) == list(second):
        return 1.0
    common = sum((Counter(first) & Counter(second)).values())
    return common / (len(first) + len(second) - common)


def tool_match(
    predicted: Sequence[Call], truth: Sequence[Call], credit: Credit = "fine", optimal: bool = False
) -> float:
    """How well `predicted` calls match the `truth`, in [0, 1].

    Args:
        predicted: calls with "name" and "parameters".
        truth: the same.
        credit: `fine` as above; `refined`: J is 1 for equal lists and 0 else; `intermediate`: a call counts whole or
            not at all; `coarse`: all calls equal or nothing.
        optimal: match repeated tools by the best assignment, not greedily in the order of `truth`.
    """
    if same_json(list(predicted), list(truth)):
        return 1.0
    if credit == "coarse":
        return 0.0
    likeness = _strict if credit == "refined" else multiset_jaccard
    names = likeness([g["name"] for g in truth], [p["name"] for p in predicted])
    table = [[_call_score(p, g, credit) for p in predicted] for g in truth]
    best = 1 + sum(1 if credit == "intermediate" else 1 + len(g["parameters"]) for g in truth)
    return (names + (_optimal(table) if optimal else _greedy(table))) / best


def tool_format(output: str, calls: bool, response: bool | None = False) -> float:
    """1 if `output` has ToolRL's frame, else 0: thinking, then calls, a response, or both, each on lines of its own.

    Blanks around it do not count. Tags that the thinking only mentions do not count either, and calls may stand in
    several blocks: these two ToolRL's own code does not allow.

    Args:
        output: all of it.
        calls: the right answer makes calls.
        response: it holds a `<response>`; None: any text without a call may follow the thinking.
    """
    thinking, ended, rest = output.strip().rpartition("</think>")
    if not ended or not thinking.startswith("<think>"):
        return 0.0
    if response is None and not calls:
        return float("<tool_call>" not in rest)
    if response and (rest.count("<response>"), rest.count("</response>")) != (1, 1):
        return 0.0
    pattern = (_CALLS if calls else "") + (_RESPONSE if response else "")
    return float(re.fullmatch(pattern, rest, re.DOTALL) is not None)


def same_json(first: object, second: object) -> bool:
    """Are two JSON values equal? 1 is 1.0, but true is not 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_json(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_json, first, second))
    return bool(first == second)


def _call_score(predicted: Call, truth: Call, credit: Credit) -> float:
    """The score of one call, 0 where it is of another tool."""
    if predicted["name"] != truth["name"]:
        return 0.0
    if credit == "intermediate":
        return float(same_json(predicted, truth))
    wanted, actual = truth["parameters"], predicted["parameters"]
    keys = (_strict if credit == "refined" else multiset_jaccard)(list(wanted), list(actual))
    return keys + sum(1.0 for key, value in wanted.items() if key in actual and same_json(actual[key], value))


def _strict(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    return float(list(first) == list(second))


def _greedy(table: Sequence[Sequence[float]]) -> float:
    """Row by row the best column still free."""
    used: set[int] = set()
    total = 0.0
    for row in table:
        free = [j for j in range(len(row)) if j not in used and row[j] > 0]
        if free:
            best = max(free, key=lambda j: (row[j], -j))
            used.add(best)
            total += row[best]
    return total


def _optimal(table: Sequence[Sequence[float]]) -> float:
    quality = torch.tensor(table, dtype=torch.float64)
    if quality.ndim < 2:
        return 0.0
    return sum(float(quality[i, j]) for i, j in assign(quality))
