"""How several rewards become one value: one dataclass per file, called on the parts, their weights and the groups.

Its members are those of `Combination` (`mmalign.core.protocols`); what else it may say of itself is in
`CombinationTraits` (`mmalign/rewards/engine/traits.py`). Where the value is linear in its parts it hands on their
`per_step` credit on the value's own scale; elsewhere that credit ends here. One that learns is `Stateful`, and
`Adaptive`, so that evaluation can keep it as it is; where it is `Synchronized` its state follows the rows of every
process and stays the same on all.

**Rows that lack a part.** Unless a combination says otherwise, a row on which any part has no value has none either: it
takes the worst status (error, timeout, not_applicable, in this order) and is masked. PARSE_FAIL has a value, the
part's floor; the row is combined like any other and keeps the status parse_fail, so that it is counted.
"""

from mmalign.core.registry import Registry

combinations = Registry("combination", "mmalign.rewards.combine")

__all__ = ["combinations"]
