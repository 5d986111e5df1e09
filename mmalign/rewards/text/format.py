"""Does the output have the asked form: tags in order, a regular expression, or JSON with given keys?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.core.types import Prompt, Status
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.parsing import Unreadable, answer_of, bounded, framed, inner, json_values

__all__ = ["Format"]

_SECONDS = 1.0  # for one match of a regular expression


@dataclass
class Format(RowRule):
    """1 where the form is right, else 0. Best used to gate another reward (`combine: gate`), and dropped once learned.

    Args:
        kind: `tags`: the whole output is `<a>…</a> <b>…</b>`, each tag once; `regex`: `pattern` matches the whole
            output; `json`: the answer is one JSON object with all `keys`.
        tags: in their order.
        free_end: text may follow the last tag (with tags: [think] the format reward of R1-style trainers).
        prefilled: the chat template has already opened the first tag, so outputs begin inside it.
        credit: of each tag, paid where it stands exactly once, instead of all or nothing (NeMo-RL: .25 and .75).
        pattern: for `regex`; "." matches line ends too.
        keys: for `json`.
    """

    kind: Literal["tags", "regex", "json"] = "tags"
    tags: tuple[str, ...] = ("think", "answer")
    free_end: bool = False
    prefilled: bool = False
    credit: tuple[float, ...] = ()
    pattern: str = ""
    keys: tuple[str, ...] = ()
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        import regex

        if bool(self.pattern) != (self.kind == "regex"):
            raise ValueError("pattern and kind: regex go together")
        if self.credit and (len(self.credit) != len(self.tags) or sum(self.credit) > 1 or min(self.credit) < 0):
            raise ValueError(f"credit is one share per tag, together at most 1, got {self.credit} for {self.tags}")
        try:
            self._pattern = regex.compile(self.pattern, regex.DOTALL)
        except regex.error as error:
            raise ValueError(f"pattern is not a regular expression: {error}") from None

    def judge(self, prompt: Prompt, output: str) -> Verdict:
        """The verdict on one output."""
        return {"tags": self._tags, "regex": self._regex, "json": self._json}[self.kind](output)

    def _tags(self, output: str) -> float:
        output = f"<{self.tags[0]}>{output}" if self.prefilled and self.tags else output
        if not self.credit:
            return float(framed(output, self.tags, self.free_end))
        return sum(share for tag, share in zip(self.tags, self.credit, strict=True) if _stands(output, tag))

    def _regex(self, output: str) -> float | Status:
        try:
            return float(self._pattern.fullmatch(bounded(output), timeout=_SECONDS) is not None)
        except TimeoutError:
            return Status.TIMEOUT

    def _json(self, output: str) -> float:
        try:
            answer = answer_of(output).removeprefix("```json").removeprefix("```").removesuffix("```").strip()
            values = json_values(answer)
        except Unreadable:
            return 0.0
        alone = len(values) == 1 and answer.startswith("{") and answer.endswith("}")
        return float(alone and all(key in values[0] for key in self.keys))


def _stands(output: str, tag: str) -> bool:
    try:
        inner(output, tag)
    except Unreadable:
        return False
    return True
