"""How answers about weighted criteria become one number per output, and how comparisons of pairs do.

The weighted share of criteria that hold is the score of rubrics (OpenRubrics 2510.07743, whose hard rules are met or
not and whose principles are weighed); probabilities in the place of yes and no, and the gate, are ours. The mean over
rivals of P(better) is r(y) = E_y' P(y ≻ y') of Direct Nash Optimization (2404.03715); that both orders of a pair are
asked, as a judge that ranks candidates must not see their places (RewardAnything 2506.03637), is worked out here.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.tensor import Tensor
from mmalign.rewards.functional.key_points import group_means


def criteria_scores(
    value: Float[Tensor, " N"],
    row: Int[Tensor, " N"],
    hard: Bool[Tensor, " N"],
    weight: Float[Tensor, " N"],
    rows: int,
) -> dict[str, Float[Tensor, " B"]]:
    """Four readings of the criteria of B rows, each in [0, 1]; NaN where there is no answer to tell by.

    | reading | is |
    |---|---|
    | `gated` | Σ w P / Σ w of the soft ones (1 without any), and 0 where a hard one has P < ½ |
    | `smooth` | the same sum times Π P of the hard ones |
    | `flat` | Σ w P / Σ w of all |
    | `share` | Σ w 1[P ≥ ½] / Σ w of all, the score of rubrics |

    Soft criteria without an answer are left out. A hard one without makes `gated` NaN, unless another one fails, and
    `smooth` NaN always: nobody knows whether the gate is open.

    Args:
        value: P(the criterion holds) of N criteria, NaN where there is no answer.
        row: the output each is about.
        hard: whether it gates the others.
        weight: in the means, above 0.
        rows: B.
    """
    single = torch.zeros_like(row)

    def mean(chosen: Bool[Tensor, " N"], of: Float[Tensor, " N"]) -> Float[Tensor, " B"]:
        return group_means(of[chosen], row[chosen], single[chosen], weight[chosen], (rows, 1))[:, 0]

    def count(chosen: Bool[Tensor, " N"]) -> Float[Tensor, " B"]:
        return value.new_zeros(rows).index_add(0, row[chosen], value.new_ones(int(chosen.sum())))

    everything = torch.ones_like(hard)
    soft = torch.where(count(~hard) > 0, mean(~hard, value), 1.0)
    failed, unknown = count(hard & (value < 0.5)) > 0, count(hard & value.isnan()) > 0
    gated = torch.where(unknown, float("nan"), soft).masked_fill(failed, 0.0)
    product = value.new_ones(rows).scatter_reduce(0, row[hard], value[hard], "prod")
    met = torch.where(value.isnan(), value, (value >= 0.5).to(value.dtype))
    any_criterion = count(everything) > 0
    readings = {"gated": gated, "smooth": soft * product, "flat": mean(everything, value)}
    readings["share"] = mean(everything, met)
    return {name: torch.where(any_criterion, reading, float("nan")) for name, reading in readings.items()}


def win_rates(
    margin: Float[Tensor, " P"],
    first: Int[Tensor, " P"],
    second: Int[Tensor, " P"],
    rows: int,
    temperature: float = 1.0,
) -> dict[str, Float[Tensor, " B"]]:
    """How B rows fare against those they were compared with, from both orders of every pair; NaN without a comparison.

    With m_ij = log P(first) - log P(second) where i was shown first, the strength is s_ij = (m_ij - m_ji) / 2: what a
    judge adds for a place, whatever is shown there, is in both orders the same and falls out exactly.

    | reading | is |
    |---|---|
    | `probability` | the mean over rivals j of σ(s_ij / temperature) |
    | `wins` | the share of rivals with s_ij > 0, those with s_ij = 0 counted as half |
    | `place` | the mean over rivals of (m_ij + m_ji) / 2, in nats: what the judge adds for standing first |

    Args:
        margin: m of P ordered comparisons, NaN where the judge gave no answer; a pair needs both of its orders.
        first: the row that was shown first.
        second: the row that was shown second.
        rows: B.
        temperature: divides s.
    """
    table = margin.new_full((rows, rows), float("nan"))
    table[first, second] = margin
    strength, place = (table - table.T) / 2, (table + table.T) / 2
    wins = torch.where(strength.isnan(), strength, (strength.sign() + 1) / 2)
    return {
        "probability": (strength / temperature).sigmoid().nanmean(1),
        "wins": wins.nanmean(1),
        "place": place.nanmean(1),
    }
