"""How several rewards become one value: one dataclass per file, called on the parts, their weights and the groups.

A combination is called as `combination(parts, weights, group)` with `parts` the `Scores` of every trained slot (equal
B), `weights` their weights and `group` (B,) the prompt each row belongs to, and returns `Scores`. It also says its
`bounds` from the slots' ranges, the slots its options `mentions`, what of the ranges and weights makes no sense to it
(`faults`, where it may be given such), and whether gradient passes (`differentiable`). Where the value is linear in its
parts it hands on their `per_step` credit on the value's own scale; elsewhere that credit ends here.
One whose value of a row depends on the rest of its group says so by `scale: group_z` or `relative = True`.
Stateful ones have `state_dict`, `load_state_dict` and an `adapting` switch; with `over_ranks` (a `Mean`, set by the
loop) their state follows the rows of every process and stays the same on all.

**Rows that lack a part.** Unless a combination says otherwise, a row on which any part has no value has none either: it
takes the worst status (error, timeout, not_applicable, in this order) and is masked. PARSE_FAIL has a value, the
part's floor; the row is combined like any other and keeps the status parse_fail, so that it is counted.
"""

from mmalign.core.registry import Registry

combinations = Registry("combination", "mmalign.rewards.combine")

__all__ = ["combinations"]
