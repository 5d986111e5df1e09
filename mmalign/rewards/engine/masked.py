"""Which rows of a data set a mix of rewards can never give a value, by their columns alone."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

import torch

from mmalign.core.errors import ConfigError, MmalignWarning
from mmalign.core.types import Prompt, Scores, Status
from mmalign.rewards.columns import missing
from mmalign.rewards.engine.mix import Mix
from mmalign.rewards.engine.traits import RewardTraits

__all__ = ["require_valued_rows"]


def require_valued_rows(mix: Mix, prompts: Sequence[Prompt]) -> None:
    """Stop where the columns of no row let the mix give it a value; warn where they do not of some.

    A reward is NOT_APPLICABLE to a row without a column that it needs, and most combinations then have no value
    either. The combination itself says so, of scores made up for each set of rewards that apply to any row.

    Raises:
        ConfigError: no row has the columns of enough rewards at once.
    """
    needs = {name: RewardTraits.of(slot.reward).needs for name, (slot, _) in mix.members.items()}
    rows = Counter(frozenset(n for n, own in needs.items() if not missing(p, own, 0)) for p in prompts)
    lacking = [applying for applying in rows if len(applying) < len(needs)]
    masked = [applying for applying in lacking if not _may_have_value(mix, applying)]
    if not masked:
        return
    count, total = sum(rows[applying] for applying in masked), len(prompts)
    columns = "; ".join(f"rewards.{name} needs {', '.join(own)}" for name, own in needs.items() if own)
    which = "none of them has all" if count == total else f"{count} of them lack some of the"
    sentence = (
        f"rewards: of the {total} rows of the data, {which} columns that rewards need ({columns}), and "
        f"combine: {type(mix.combination).__name__} gives such a row no value. If each row is meant for the rewards "
        "whose columns it has, set combine: {name: weighted_sum, missing: renormalize}."
    )
    if count == total:
        raise ConfigError(sentence)
    warnings.warn(sentence, MmalignWarning, stacklevel=2)


def _may_have_value(mix: Mix, applying: frozenset[str]) -> bool:
    """Can a row to which the rewards of these names apply have a value, at 0 or at 1 of each?"""
    tried = torch.tensor([0.0, 1.0])
    parts = {name: Scores.of(tried.clone()) for name in mix.members}
    for name in parts.keys() - applying:
        parts[name] = Scores(
            torch.full_like(tried, torch.nan), torch.full((2,), int(Status.NOT_APPLICABLE)).to(torch.int8)
        )
    weights = {name: weight for name, (_, weight) in mix.members.items()}
    combined = deepcopy(mix.combination)(parts, weights, torch.arange(2))
    return bool(combined.valid.any())
