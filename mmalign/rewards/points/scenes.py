"""Key points of the miniworld's scenes, from the request itself: one question per clause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmalign.core.types import Prompt
from mmalign.rewards.points._key_points import KeyPoint

if TYPE_CHECKING:
    from mmalign.miniworld.language import Request
    from mmalign.miniworld.questions import Question

__all__ = ["Scenes"]


@dataclass
class Scenes:
    """Questions of `miniworld.questions`; the request is `prompt.meta["request"]` where given, else the prompt.

    A text outside the world's grammar has no key points.

    Args:
        fine: ask for shape, colour, size and number of each group one after the other, each behind the one before it;
            else one question per clause.
    """

    fine: bool = False
    needs: tuple[str, ...] = ()

    def __call__(self, prompt: Prompt) -> list[KeyPoint] | None:
        """The prompt's key points."""
        from mmalign.miniworld.language import CaptionError, parse
        from mmalign.miniworld.questions import key_questions, questions_of

        try:
            request = parse(str(prompt.meta.get("request") or prompt.text))
        except CaptionError:
            return None
        if not self.fine:
            return [KeyPoint(_point(question, request), question.text) for question in questions_of(request)]
        return [
            KeyPoint(_point(question, request), question.text, parents=parents)
            for question, parents in key_questions(request)
        ]


def _point(question: Question, request: Request) -> str:
    """Which of the 24 a question of this world is about."""
    clause = question.clause
    if clause.test == "relation":
        return "entity_layout"
    kind = clause.kind
    if kind is None or not (kind.color or kind.size):
        return "counting"
    if len(request.groups) > 1:
        return "cross_entity_binding"
    if kind.size:
        return "size"
    return "attribute_consistency" if question.some else "counting"
