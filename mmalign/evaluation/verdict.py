"""A run in a sentence: did truth move with the reward that was trained on? And two runs: which is better?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from mmalign.evaluation.table import SummaryRow, number_text

__all__ = ["comparison_verdict", "direction", "directions", "p_value", "unmoved", "verdict"]

MOST_SHOWN = 3


def direction(row: SummaryRow) -> str:
    """ "up" or "down" where the interval of the change lies on one side of zero, else "even"."""
    return "up" if row.ci[0] > 0 else "down" if row.ci[1] < 0 else "even"


def unmoved(row: SummaryRow) -> bool:
    """Did nothing differ in any row? An interval of no width would say that this is certain."""
    return bool(row.delta == 0 and row.ci[0] == 0 and row.ci[1] == 0)


def directions(rows: Sequence[SummaryRow], level: float = 0.05) -> list[str]:
    """`direction` of each row where all are looked at together, by Holm's procedure (Scand. J. Statist. 6, 1979).

    With m measures that did not move, one of the intervals leaves zero out in 1 - 0.95^m of runs; after this, in at
    most `level`. A row's p is read from its interval, as of a normal estimate.
    """
    by_row = ["even"] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: p_value(rows[i]))
    for rank, i in enumerate(order):
        if not p_value(rows[i]) <= level / (len(rows) - rank):
            break
        by_row[i] = direction(rows[i])
    return by_row


def p_value(row: SummaryRow) -> float:
    """Return the two-sided p of no change, from the 95 % interval; 1 where there is none or it has no width."""
    from scipy.special import ndtr, ndtri

    width = row.ci[1] - row.ci[0]
    if not math.isfinite(width) or width <= 0:
        return 0.0 if width == 0 and row.delta else 1.0
    return float(2 * ndtr(-abs(row.delta) / (width / (2 * ndtri(0.975)))))


def verdict(rows: Sequence[SummaryRow]) -> tuple[str, str]:
    """Return a tone (good, bad or even) and a sentence; ("even", "") without rows.

    The truth is the verifier, or the judges where there is none; of several, what counts as moved is Holm's.
    """
    trained, truths = _trained_and_true(rows)
    if not truths:
        return (
            ("even", "No judge or verifier measured this run, so nothing tells gain from reward hacking.")
            if (trained)
            else ("even", "")
        )
    by_truth = directions(truths)
    changes = changes_in_words(truths, by_truth)
    moved = {direction(row) for row in trained}
    rose = "up" in moved and "down" not in moved
    ways = set(by_truth)
    if "down" in ways and rose:
        return "bad", f"Reward hacking, the trained reward rose while the truth fell: {changes}."
    if "down" in ways:
        return "bad", f"Worse on held-out prompts: {changes}."
    if ways == {"up"}:
        return "good", f"Better on held-out prompts: {changes}."
    if "up" in ways:
        return "good", f"Better on held-out prompts by some measures: {changes}."
    if rose:
        return (
            "even",
            f"The trained reward rose, the truth did not move beyond chance; watch for reward hacking: {changes}.",
        )
    return "even", f"No change beyond chance: {changes}."


def comparison_verdict(rows: Sequence[SummaryRow], names: tuple[str, str]) -> tuple[str, str]:
    """`verdict` of a second run against a first, whose `names` these are; `before` and `after` of a row are theirs."""
    first, second = names
    trained, truths = _trained_and_true(rows)
    measured = truths or trained
    if not measured:
        return "even", ""
    ways = directions(measured)
    in_words = changes_in_words(measured, ways, partial(_beside, names=names))
    only = "" if truths else " (on what was trained on, which tells nothing of reward hacking)"
    if {"up", "down"} <= set(ways):
        return "even", f"{second} is better than {first} by some measures and worse by others{only}: {in_words}."
    if "down" in ways:
        higher = {direction(row) for row in trained} == {"up"}
        though = ", though its trained reward is higher" if higher and truths else ""
        return "bad", f"{second} is worse than {first}{though}{only}: {in_words}."
    if "up" in ways:
        return "good", f"{second} is better than {first}{only}: {in_words}."
    return "even", f"{second} and {first} do not differ beyond chance{only}: {in_words}."


def _trained_and_true(rows: Sequence[SummaryRow]) -> tuple[list[SummaryRow], list[SummaryRow]]:
    """What was trained on, and the truth: verifiers, or judges where there is none."""
    by_role = {role: [row for row in rows if row.role == role] for role in ("trained", "verifier", "judge")}
    return by_role["trained"], by_role["verifier"] or by_role["judge"]


def changes_in_words(
    rows: Sequence[SummaryRow], ways: Sequence[str], in_words: Callable[[SummaryRow], str] | None = None
) -> str:
    """Return the first rows `in_words`, those that moved before others, and how many more there are."""
    in_words = in_words or _in_words
    order = sorted(range(len(rows)), key=lambda i: ways[i] == "even")
    more = [f"{len(rows) - MOST_SHOWN} more below"] if len(rows) > MOST_SHOWN else []
    return "; ".join([*(in_words(rows[i]) for i in order[:MOST_SHOWN]), *more])


def _in_words(row: SummaryRow) -> str:
    if unmoved(row):
        return f"{row.name} is {number_text(row.before)} before and after, the same in all {row.n} rows"
    low, high = (number_text(v, signed=True) for v in row.ci)
    what = f"{row.name} went from {number_text(row.before)} to {number_text(row.after)}"
    return f"{what} ({number_text(row.delta, signed=True)}, 95 % interval {low} to {high}, {row.n} rows)"


def _beside(row: SummaryRow, names: tuple[str, str]) -> str:
    if unmoved(row):
        return f"{row.name} is {number_text(row.before)} in both, the same in all {row.n} rows"
    low, high = (number_text(v, signed=True) for v in row.ci)
    what = f"{row.name} is {number_text(row.after)} in {names[1]} and {number_text(row.before)} in {names[0]}"
    return f"{what} ({number_text(row.delta, signed=True)}, 95 % interval {low} to {high}, {row.n} rows)"
