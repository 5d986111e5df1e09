"""The one option that a multiple-choice answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmalign.rewards.parsing.markup import plain, unwrapped
from mmalign.rewards.parsing.text import BLANKLESS, SHORT, Unreadable, bounded, normalized

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD = rf"[^\W{BLANKLESS}]"  # in scripts without blanks a character beside a letter does not belong to it: 选B
_CAPITAL = re.compile(rf"(?<!{_WORD})(?<!\w['’])([A-Z])(?!{_WORD}|['’]\w)")
_BRACKETED = re.compile(rf"(?<!{_WORD})[(\[（【]([A-Za-z])[)\]）】]")
# "A dog": the article, not the option. "A is right" names it.
_ARTICLE = re.compile(r"(?:^|[.!?:]\s+)A (?!is\b|was\b|as\b|and\b|or\b|because\b|since\b|for\b|would\b|must\b)[a-z]")
_LED = re.compile(r"\(?([A-Za-z])[).:：．、]\s*(\S.*)", re.DOTALL)


def choice(text: str, options: int, texts: Sequence[str] = ()) -> str:
    """The capital letter of the option that `text` names.

    A text that is an option's own words, or a single letter of either case, is that option; so is one behind its letter
    ("b) a dog"), unless they are another option's words. Else exactly one letter may stand in the text, as a capital
    by itself or in brackets: "A or B" names none, however often it repeats them, and nor does the article of "A dog".

    Args:
        text: the answer, without thinking; Markdown, LaTeX and quotation marks around it do not count.
        options: how many there are, lettered from A.
        texts: their words, where known.

    Raises:
        Unreadable: no option, or several.
    """
    letters, answer = LETTERS[:options], unwrapped(bounded(text, SHORT))
    same = _same(answer, letters, texts)
    if len(same) == 1:
        return same[0]
    alone = normalized(answer).strip("()[]{}（）【】*_\"'` ").upper()
    if len(alone) == 1 and alone in letters:
        return alone
    if (led := _LED.fullmatch(answer)) is not None and led[1].upper() in letters:
        named = {led[1].upper(), *_same(led[2], letters, texts)[:1]}
    else:
        named = _named(answer, letters)
    if len(named) != 1:
        letters_named = " and ".join(sorted(named)) or "none"
        raise Unreadable(f"the answer must name one option of {letters[:1]}–{letters[-1:]}; it names {letters_named}")
    return named.pop()


def _same(answer: str, letters: str, texts: Sequence[str]) -> list[str]:
    """Letters of the options whose words `answer` is."""
    plainly = normalized(answer)
    return [
        letter for letter, words in zip(letters, texts, strict=False) if words.strip() and normalized(words) == plainly
    ]


def _named(answer: str, letters: str) -> set[str]:
    simple = plain(answer)
    wide = "".join(chr(ord(c) - 0xFEE0) if "Ａ" <= c <= "ｚ" else c for c in simple)
    capitals = _CAPITAL.findall(_ARTICLE.sub(" ", wide))
    bracketed = [letter.upper() for letter in _BRACKETED.findall(wide)]
    return {letter for letter in (*capitals, *bracketed) if letter in letters}
