"""Do the tool calls match the right ones? ToolRL's reward: partial credit for names, parameters and values."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards._rows import Verdict, judge_rows
from mmalign.rewards._texts import from_data
from mmalign.rewards.functional import tool_format, tool_match
from mmalign.rewards.functional.tool_match import Credit
from mmalign.rewards.parsing import Unreadable, bounded, tool_calls

__all__ = ["ToolCall"]


@dataclass
class ToolCall:
    """match + format_weight × format (Qian et al. 2025, 2504.13958, and its `rlla.py`), by default in [-3, 4].

    `match` is scale × (2 × `functional.tool_match` - 1), -scale where the calls cannot be read, and 0 where the right
    answer makes none. `format` is 1 for ToolRL's frame of tags. Both are in `parts`. An output whose calls cannot be
    read and whose frame is wrong too is PARSE_FAIL; its value, the floor, is also ToolRL's.

    Not here: schedules over training steps, and the length of thinking (`length` with low: 512, within: think).

    Args:
        column: of `Prompt.meta`: the right output in the same tags, e.g. "<tool_call>\\n{…}\\n</tool_call>".
        scale: of the match, 3 in the paper, 1 with CORRECTMAX1.
        format_weight: of the format.
        credit: `fine`, or the repository's variants `refined`, `intermediate`, `coarse` (`functional.tool_match`).
        optimal: match repeated tools by the best assignment; ToolRL's is greedy.
        spurious: match of an output that calls a tool where the right answer does not; ToolRL forgives it (0).
    """

    column: str = "ground_truth"
    scale: float = 3.0
    format_weight: float = 1.0
    credit: Credit = "fine"
    optimal: bool = False
    spurious: float = 0.0
    modalities = frozenset({"text"})
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.format_weight < 0 or not -self.scale <= self.spurious <= self.scale:
            raise ValueError("scale > 0, format_weight >= 0 and -scale <= spurious <= scale")

    @property
    def range(self) -> tuple[float, float]:
        """From unreadable to perfect."""
        return -self.scale, self.scale + self.format_weight

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return (self.column,)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        return judge_rows(self.judge, rollout, self.range[0], self.needs)

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The value and parts of one output."""
        truth = str(prompt.meta[self.column])
        shaped = tool_format(output, truth)
        try:
            match = self._match(bounded(output), truth)
        except Unreadable:
            if not shaped or not self.format_weight:
                raise
            match = -self.scale
        return match + self.format_weight * shaped, {"match": match, "format": shaped}

    def _match(self, output: str, truth: str) -> float:
        if "<tool_call>" not in truth:
            return self.spurious if "<tool_call>" in output else 0.0
        right = from_data(self.column, lambda: tool_calls(truth))
        return self.scale * (2 * tool_match(tool_calls(output), right, self.credit, self.optimal) - 1)
