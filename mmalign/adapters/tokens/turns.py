"""Given turns as a chat template writes them behind their prompt: their ids, and which of them the assistant says.

An assistant's turn is trained from where a prompt for it ends (the template's own beginning of an answer belongs to the
prompt) up to the last token in it that stops generation. That needs exact prefixes: the whole conversation must begin
with the very ids of a prompt for the turn, and of the conversation up to its end. Some templates write earlier turns in
another way (without their thoughts); these are refused. TRL's `assistant_only_loss` trains what a template marks as
generated, which is the same but for line breaks around the turns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mmalign.core.conversation import Message
from mmalign.core.errors import DataError

IdsOf = Callable[[Sequence[Message], bool], Sequence[int]]  # turns behind the prompt, "ready for an answer" → ids


def turn_ids(ids_of: IdsOf, turns: Sequence[Message], stops: Collection[int]) -> tuple[list[int], list[bool]]:
    """Return the ids of `turns` behind their prompt up to the end of the last one, and which the assistant says.

    Args:
        ids_of: the ids of a prompt with some turns behind it, ready for an answer or not.
        turns: messages; the last is the assistant's.
        stops: ids that end an answer.

    Raises:
        DataError: the template has no exact prefixes here.
    """
    start, whole = len(ids_of((), True)), list(ids_of(turns, False))
    spoken = [False] * len(whole)
    end = start
    for number in (n for n, turn in enumerate(turns) if turn["role"] == "assistant"):
        before, through = list(ids_of(turns[:number], True)), list(ids_of(turns[: number + 1], False))
        first = len(before)
        end = next((at + 1 for at in range(len(through) - 1, first - 1, -1) if through[at] in stops), len(through))
        if through[:first] != before or end == first:
            raise DataError(
                "the chat template does not write this answer behind what it writes before one, so that what is to be "
                "learned cannot be told; leave the row out, or write the answer in the content as the model writes it."
            )
        if whole[:end] != through[:end]:
            raise DataError(
                "the chat template writes an earlier answer in another way inside the whole conversation (without its "
                "thoughts, for one), so that it is no example of what is asked there; set data.imitate: each, or last."
            )
        spoken[first:end] = [True] * (end - first)
    return whole[start:end], spoken[start:end]


__all__ = ["IdsOf", "turn_ids"]
