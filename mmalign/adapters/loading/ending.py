"""What ends a text: the one place that decides it, for given texts and for those that a policy writes.

A chat template says what comes behind an assistant's answer; the tokens of that, up to and including the first that
stops generation, are the end. It need not be the tokenizer's `eos_token`: Gemma 3 ends a turn with `<end_of_turn>`,
Phi 3.5 with `<|end|>`, and a base model with a ChatML template with `<|im_end|>`. Where a template ends turns with a
special token that nothing names as a stop, it becomes one, so that what is trained is also where sampling stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("mmalign")

Write = Callable[[str], str]  # an answer → the conversation that ends with it, as text

ANSWER = "mmalign answers"  # words that no template has of its own


@dataclass(frozen=True)
class Ending:
    """`end`: the tokens put behind a given text. `stops`: all that end a completion, the last of `end` among them."""

    end: tuple[int, ...]
    stops: tuple[int, ...]
    marks: tuple[str, ...]  # texts of ends: what a given text may already end with

    def bare(self, text: str) -> str:
        """A given text without an end that it already has (and blanks behind that)."""
        while mark := next((m for m in self.marks if text.rstrip().endswith(m)), None):
            text = text.rstrip().removesuffix(mark)
        return text

    def ended(self, ids: Sequence[int]) -> list[int]:
        """The ids of a bare text, ended once: a stop that is a word of the text is its end."""
        return [*ids] if ids and ids[-1] in self.stops else [*ids, *self.end]

    def cut(self, ids: Sequence[int]) -> list[int]:
        """The ids of a completion without what ended it."""
        if self.end and tuple(ids[-len(self.end) :]) == self.end:
            return [*ids[: -len(self.end)]]
        return [*ids[:-1]] if ids and ids[-1] in self.stops else [*ids]


def ending(tokenizer: Any, stops: Sequence[int], write: Write | None = None) -> Ending:
    """What ends a text.

    Args:
        tokenizer: of transformers.
        stops: every id that is named as ending a completion.
        write: the conversation in the chat template; None where prompts are not put into one. A text then ends with
            the tokenizer's `eos_token`, or with the first of `stops`.
    """
    own = tokenizer.eos_token_id
    plain = (own,) if own in stops else tuple(stops[:1])
    end = plain if write is None else (_behind(tokenizer, stops, write) or plain)
    known = tuple(dict.fromkeys([*stops, *end[-1:]]))
    special = set(tokenizer.all_special_ids) | _added(tokenizer)
    marks = [tokenizer.decode([i]) for i in known if i in special]
    if end and end[-1] in special:
        marks.append(tokenizer.decode(list(end)))
    return Ending(end, known, tuple(sorted({m for m in marks if m.strip()}, key=len, reverse=True)))


def _behind(tokenizer: Any, stops: Sequence[int], write: Write) -> tuple[int, ...]:
    """What the template writes behind an answer, up to what stops there; () if nothing of that does."""
    try:
        _, marker, tail = write(ANSWER).rpartition(ANSWER)
    except Exception as error:  # templates raise what they like
        log.warning("the chat template writes no answered conversation (%s): given texts end with eos_token.", error)
        return ()
    if not marker:
        log.warning(
            "the chat template changes answers; what it puts behind them is not known: given texts end with eos_token."
        )
        return ()
    ids = _ids_behind(tokenizer, tail)
    for kind in (set(stops), set(tokenizer.all_special_ids) | _added(tokenizer)):
        if place := next((n for n, i in enumerate(ids, 1) if i in kind), 0):
            return tuple(ids[:place])
    return ()


def _ids_behind(tokenizer: Any, tail: str) -> list[int]:
    """Ids of a text that stands behind another one: some tokenizers put a blank before whatever comes first."""
    first = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    both = tokenizer(ANSWER + tail, add_special_tokens=False)["input_ids"]
    if both[: len(first)] == first:
        return list(both[len(first) :])
    return list(tokenizer(tail, add_special_tokens=False)["input_ids"])


def _added(tokenizer: Any) -> set[int]:
    """Special tokens that were added to the vocabulary and have no role of their own."""
    return {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}


def appended(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts behind every text by itself (`add_eos_token`): no end of a prompt to be continued."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[start + len(bare) :])
    return ()
