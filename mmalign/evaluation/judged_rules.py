"""Rules of judged rows that ask more than which output is better: lists, rows that belong together, near prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmalign.core.types import Prompt, Scores, Status
from mmalign.evaluation.listwise import all_right, ndcg, reciprocal_rank

__all__ = ["TIES", "Ranked", "judged_rules", "near_prompts", "scores_of"]


TIES = "Ties"  # the subset of the ties rule


@dataclass
class Ranked:
    """One row: a prompt with right and wrong outputs, and their scores; `near`: of the first for near prompts."""

    prompt: Prompt
    chosen: list[Any]
    rejected: list[Any]
    scores: list[float]
    near: list[float] = field(default_factory=list)

    @property
    def good(self) -> list[float]:
        """Scores of the right outputs."""
        return self.scores[: len(self.chosen)]

    @property
    def bad(self) -> list[float]:
        """Scores of the wrong outputs."""
        return self.scores[len(self.chosen) :]

    @property
    def pick(self) -> Any:
        """The output that the scorer likes best."""
        return [*self.chosen, *self.rejected][int(np.argmax(self.scores))]

    @property
    def subset(self) -> str:
        """The domain it is counted in."""
        return str(self.prompt.meta.get("subset") or "")

    @property
    def count(self) -> int:
        """N, where the best-of-N rule applies; else 0."""
        fits = len(self.chosen) == 1 and len(self.rejected) > 1 and self.subset != TIES
        return 1 + len(self.rejected) if fits else 0


def near_prompts(prompt: Prompt) -> list[Prompt]:
    """The prompts of column `near`, about the same media; each a text, or {prompt, meta} with columns of its own."""
    near = prompt.meta.get("near") or []
    made = []
    for one in near if isinstance(near, list | tuple) else [near]:
        text, meta = (one["prompt"], one.get("meta") or {}) if isinstance(one, dict) else (one, {})
        made.append(Prompt(str(text), prompt.media, {**prompt.meta, **meta}, prompt.place))
    return made


def judged_rules(ranked: Sequence[Ranked]) -> dict[str, Scores]:
    """Every rule of this file that applies to any row."""
    rules = {}
    lists = [len(row.good) + len(row.bad) > 2 for row in ranked]
    if any(lists):
        rules["mrr"] = scores_of(ranked, lists, lambda row: reciprocal_rank(row.good, row.bad))
        rules["ndcg"] = scores_of(
            ranked, lists, lambda row: ndcg(row.scores, [1.0] * len(row.good) + [0.0] * len(row.bad))
        )
    near = [bool(row.near) for row in ranked]
    if any(near):
        rules["c_ins"] = scores_of(ranked, near, _instruction_consistency)
        rules["c_res"] = scores_of(ranked, near, lambda row: _wins(row.good[0], row.bad))
    for name, column in (("acc_plus", "sample"), ("reversal", "reversal")):
        if any(row.prompt.meta.get(column) is not None for row in ranked):
            rules[name] = _together(ranked, column)
    return rules


def scores_of(
    ranked: Sequence[Any],
    fits: Sequence[bool],
    rule: Callable[[Any], float],
    beside: Callable[[Any], Sequence[float]] = lambda row: (),
) -> Scores:
    """`rule` of the rows it fits; an ERROR where a score (its own, or one `beside`) is not a number."""
    value, status = torch.full((len(ranked),), torch.nan), torch.zeros(len(ranked), dtype=torch.int8)
    for i, (row, fit) in enumerate(zip(ranked, fits, strict=True)):
        if not fit:
            status[i] = Status.NOT_APPLICABLE
        elif not np.isfinite([*row.scores, *beside(row)]).all():
            status[i] = Status.ERROR
        else:
            value[i] = rule(row)
    return Scores(value, status)


def _instruction_consistency(row: Ranked) -> float:
    """C_ins (arXiv 2309.16155): the share of near prompts for which the same output scores lower; equal ones half."""
    return _wins(row.good[0], row.near) if np.isfinite(row.near).all() else float("nan")


def _wins(score: float, others: Sequence[float]) -> float:
    lead = score - np.asarray(others, float)
    return float((lead > 0).mean() + 0.5 * (lead == 0).mean())


def _together(ranked: Sequence[Ranked], column: str) -> Scores:
    """1 where all pairs of all rows of one value in `column` are ranked right; it stands on the first of these rows."""
    names = [row.prompt.meta.get(column) for row in ranked]
    scored = [bool(np.isfinite(row.scores).all()) for row in ranked]
    right = [min(row.good) > max(row.bad) for row in ranked]
    inside = [i for i, name in enumerate(names) if name is not None]
    together = all_right([right[i] for i in inside], [names[i] for i in inside])
    known = all_right([scored[i] for i in inside], [names[i] for i in inside])
    status = torch.full((len(ranked),), int(Status.NOT_APPLICABLE), dtype=torch.int8)
    value = torch.full((len(ranked),), torch.nan)
    for i in inside:
        if names.index(names[i]) == i:
            status[i] = int(Status.OK if known[names[i]] else Status.ERROR)
            value[i] = float(together[names[i]]) if known[names[i]] else torch.nan
    return Scores(value, status)
