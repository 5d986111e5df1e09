"""Is the answer mathematically the right one? Equivalence of numbers, formulas, sets and intervals, by math-verify."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmalign.core.errors import MissingExtra
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.types import Prompt, Status
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.columns import NeedsColumn, from_data, solutions_of
from mmalign.rewards.parsing import SHORT, Unreadable, Where, answer_of, bounded
from mmalign.rewards.parsing.formulas import formula
from mmalign.rewards.text._line_process import LineProcess

__all__ = ["MathEqual"]

_WORKER = Path(__file__).with_name("_math_worker.py")
_KEPT = 4096  # right answers whose reading is remembered


@dataclass
class MathEqual(NeedsColumn, RowRule):
    """1 if the answer equals (one of) the right one(s), else 0: math-verify's judgement, as in TRL's `accuracy_reward`.

    1/2 is 0.5 and 50%, x+1 is 1+x, {1, 2} is {2, 1}; decimals are equal to six places. Its rule for per cent is that
    12% is both 0.12 and 12. An answer that is no mathematics is PARSE_FAIL. In prose (where there are neither tags nor
    a box) only LaTeX behind words such as "the answer is" counts: nothing is guessed. What takes too long is TIMEOUT.

    The library runs in a process of its own, which is killed when the time is up: in any thread, whatever the formula.

    Args:
        column: of `Prompt.meta`: the right answer as LaTeX or a number, a list of equally right ones, or a worked
            solution that ends in "#### 72" or holds a `\\boxed{72}`. What the library cannot read stops the run before
            it starts.
        where: the answer stands, see `parsing.answer_of`.
        seconds: for one answer.
        memory: of the process, in MiB.
    """

    column: str = "answer"
    where: Where = "auto"
    seconds: Positive = 5.0
    memory: AtLeastOne = 2048
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = False  # what passes a time limit on a busy machine need not on an idle one
    _read: OrderedDict[str, str] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory < 512:
            raise ValueError("seconds are above 0, memory is at least 512 (MiB)")
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("reward 'math_equal'", "math")

    @cached_property
    def process(self) -> LineProcess:
        """Where the library runs; started by the first row."""
        return LineProcess(_WORKER, greets=True)

    def check_data(self, prompt: Prompt) -> None:
        """Raise ValueError where a right answer of a row is no mathematics."""
        for text in self._right(prompt):
            if text not in self._read:
                self._read[text] = self._fault(text)
                if len(self._read) > _KEPT:
                    self._read.popitem(last=False)
            if self._read[text]:
                raise ValueError(f"Prompt.meta['{self.column}'], '{text[:60]}', {self._read[text]}")

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The verdict on one output."""
        right = self._right(prompt)
        answer, prose = answer_of(output, self.where), False
        try:
            answer = formula(answer)
        except Unreadable:
            answer, prose = bounded(answer, SHORT), True
        reply = self._reply(right, answer, prose)
        if reply is None or reply.get("fault") == "limit":
            self.check_data(prompt)  # the right answer may be what takes so long
            return Status.TIMEOUT
        if reply.get("fault") == "gold":
            raise ValueError(f"Prompt.meta['{self.column}'], '{right[reply['which']][:60]}', {reply['why']}")
        if "fault" in reply:
            raise Unreadable(f"{reply['why']}: '{answer[-60:]}'")
        return float(reply["equal"])

    def _right(self, prompt: Prompt) -> list[str]:
        if isinstance(prompt.meta[self.column], bool):
            raise ValueError(f"Prompt.meta['{self.column}'] is {prompt.meta[self.column]}, which is no mathematics")
        return [from_data(self.column, lambda text=text: formula(text)) for text in solutions_of(prompt, self.column)]  # type: ignore[misc]

    def _fault(self, text: str) -> str:
        reply = self._reply([text], None, False)
        if reply is None or reply.get("fault") == "limit":
            return f"takes more than {self.seconds:g} s or {self.memory} MiB"
        return str(reply.get("why", ""))

    def _reply(self, gold: list[str], answer: str | None, prose: bool) -> dict[str, Any] | None:
        limits = {"seconds": self.seconds, "memory": self.memory}
        return self.process.ask({"gold": gold, "said": answer, "prose": prose, **limits}, self.seconds)
