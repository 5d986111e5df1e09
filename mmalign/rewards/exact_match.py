"""Is the answer the right one, word for word? Case, width, punctuation at the ends and blanks do not count."""

from __future__ import annotations

from mmalign.core.types import Prompt
from mmalign.rewards._rule import rule
from mmalign.rewards._texts import from_data, references_of
from mmalign.rewards.parsing import Where, answer_of, normalized

__all__ = ["exact_match"]

_YES = ("yes", "true", "correct", "right", "yeah", "yep", "是", "对", "oui", "ja", "sí", "si")
_NO = ("no", "false", "incorrect", "wrong", "nope", "not", "否", "不是", "non", "nein")
_SAME = dict.fromkeys(_YES, "yes") | dict.fromkeys(_NO, "no")
_DIRECTION = "right"  # as a reference it may be the opposite of left, which "yes" does not say


@rule(modalities={"text"}, range=(0.0, 1.0), needs=("column",))
def exact_match(
    prompt: Prompt, output: str, *, column: str = "answer", where: Where = "auto", synonyms: bool = True
) -> float:
    """1 if the answer equals (one of) the reference(s), else 0: the matching reward of Mixed-R1 (2505.24164).

    Both sides are normalised (`parsing.normalized`). The normalisation is a reconstruction; only the paper's abstract
    was in reach.

    Args:
        column: of `Prompt.meta`: the right answer, or a list of equally right ones.
        where: the answer stands, see `parsing.answer_of`.
        synonyms: "true", "correct", … are "yes", and their opposites "no"; the reference "right" is only itself.
    """
    said = normalized(answer_of(output, where))
    right = from_data(column, lambda: [normalized(reference) for reference in references_of(prompt, column)])
    meant = {_SAME[text] for text in right if text in _SAME and text != _DIRECTION} if synonyms else set()
    return float(said in right or _SAME.get(said) in meant)
