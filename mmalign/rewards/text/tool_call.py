"""Do the tool calls match the right ones? ToolRL's reward: partial credit for names, parameters and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmalign.core.options import NotNegative, Positive
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.columns import NeedsColumn, from_data
from mmalign.rewards.functional import tool_format, tool_match
from mmalign.rewards.functional.tool_match import Credit
from mmalign.rewards.parsing import Unreadable, bounded, tool_calls
from mmalign.rewards.parsing.calls import START, calls_of

__all__ = ["ToolCall"]


@dataclass
class ToolCall(NeedsColumn, RowRule):
    """match + format_weight × format (Qian et al. 2025, 2504.13958, and its `rlla.py`), by default in [-3, 4].

    `match` is scale × (2 × `functional.tool_match` - 1), -scale where the calls cannot be read, and 0 where the right
    answer makes none. `format` is 1 for ToolRL's frame of tags (`functional.tool_format`). Both are in `parts`. An
    output whose calls cannot be read and whose frame is wrong too is PARSE_FAIL; its value, the floor, is ToolRL's.

    Where this is not ToolRL's code, on purpose: tags that the thinking mentions are no calls; several `<tool_call>`
    blocks count all; a call may take several lines, with empty ones between; "arguments" are "parameters"; other keys
    of a call do not count; true is not 1.

    Not here: schedules over training steps, and the length of thinking (`length` with low: 512, within: think).

    Args:
        column: of `Prompt.meta`: the right output in the same tags, e.g. "<tool_call>\\n{…}\\n</tool_call>"; or the
            right calls as a list, an object or JSON text, [] where none is right. What is neither stops the run.
        scale: of the match, 3 in the paper, 1 with CORRECTMAX1.
        format_weight: of the format.
        credit: `fine`, or the repository's variants `refined`, `intermediate`, `coarse` (`functional.tool_match`).
        optimal: match repeated tools by the best assignment; ToolRL's is greedy.
        spurious: match of an output that calls a tool where the right answer does not; ToolRL forgives it (0).
    """

    column: str = "ground_truth"
    scale: Positive = 3.0
    format_weight: NotNegative = 1.0
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
        """The range from unreadable to perfect."""
        return -self.scale, self.scale + self.format_weight

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where the right calls of a row cannot be read."""
        self._right(prompt)

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The value and parts of one output."""
        right = self._right(prompt)
        shaped = tool_format(output, bool(right), self._responds(prompt))
        # Thinking that never ends costs the format; what it calls is read nonetheless, as in ToolRL.
        answer = output.rpartition("</think>")[2]
        if not right:
            match = self.spurious if START in answer else 0.0
            return match + self.format_weight * shaped, {"match": match, "format": shaped}
        try:
            calls = tool_calls(bounded(answer), {call["name"] for call in right})
            match = self.scale * (2 * tool_match(calls, right, self.credit, self.optimal) - 1)
        except Unreadable:
            if not shaped or not self.format_weight:
                raise
            match = -self.scale
        return match + self.format_weight * shaped, {"match": match, "format": shaped}

    def _responds(self, prompt: Prompt) -> bool | None:
        """Does the right output hold a response? None where only its calls are known, and it makes none."""
        value = prompt.meta[self.column]
        tagged = isinstance(value, str) and any(tag in value for tag in (START, "<response>", "<think>"))
        return "<response>" in value if tagged else False if self._right(prompt) else None

    def _right(self, prompt: Prompt) -> list[dict[str, Any]]:
        value = prompt.meta[self.column]
        return from_data(self.column, lambda: calls_of(value)) or []
