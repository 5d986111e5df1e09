"""Which tokens of a vocabulary say a word such as "yes"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.core.errors import ConfigError
from mmalign.loading.foreign import Tokenizer

_BLANKS = "Ġ▁ "  # how byte-level and sentence-piece vocabularies write a blank before a word


@dataclass(frozen=True)
class AnswerWords:
    """Token ids that mean yes and no; `doubts` says where a token stands for more than its word."""

    yes: tuple[int, ...]
    no: tuple[int, ...]
    doubts: tuple[str, ...] = ()


def answer_words(tokenizer: Tokenizer, yes: str, no: str) -> AnswerWords:
    """The tokens of two words in every letter case, with and without a blank before them.

    A word that is no token of its own is known by its first token, which may begin other words too: a doubt.

    Raises:
        ConfigError: a word that the vocabulary does not know, or two that begin alike.
    """
    token_ids, doubts = [], []
    for option, word in (("yes", yes), ("no", no)):
        ids = _whole(tokenizer, word)
        if not ids and (ids := _beginnings(tokenizer, word)):
            pieces = ", ".join(repr(tokenizer.decode([i])) for i in ids)
            doubts.append(f"'{word}' is no token of its own; it is known by its first: {pieces}")
        if not ids:
            raise ConfigError(f"{option}: this tokenizer has no token for '{word}'; name a word that it has.")
        token_ids.append(ids)
    if shared := sorted(set(token_ids[0]) & set(token_ids[1])):
        pieces = ", ".join(repr(tokenizer.decode([i])) for i in shared)
        raise ConfigError(f"yes, no: '{yes}' and '{no}' begin with the same token ({pieces}); name others.")
    return AnswerWords(tuple(token_ids[0]), tuple(token_ids[1]), tuple(doubts))


def _whole(tokenizer: Tokenizer, word: str) -> list[int]:
    """Every token that is the word: those so spelled, and those that its spellings become."""
    folded = word.casefold()
    spelled = {i for piece, i in tokenizer.get_vocab().items() if piece.lstrip(_BLANKS).casefold() == folded}
    return sorted(spelled | {ids[0] for ids in _encoded(tokenizer, word) if len(ids) == 1})


def _beginnings(tokenizer: Tokenizer, word: str) -> list[int]:
    return sorted({ids[0] for ids in _encoded(tokenizer, word) if tokenizer.decode(ids[:1]).strip()})


def _encoded(tokenizer: Tokenizer, word: str) -> list[Sequence[int]]:
    """Ids of the word as it is usually written, without those that hold an unknown or special token."""
    cases = dict.fromkeys((word, word.lower(), word.capitalize(), word.upper()))
    written = [tokenizer(blank + case, add_special_tokens=False)["input_ids"] for case in cases for blank in ("", " ")]
    unread = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    return [ids for ids in written if ids and not unread & set(ids)]
