"""The small CLIP tokenizer that the scene models share: every word of the grammar is one token."""

import string
from itertools import pairwise
from typing import TYPE_CHECKING

from mmalign.miniworld.language import COUNT_WORDS, PLURALS, RELATIONS
from mmalign.miniworld.scenes import COLORS, SHAPES, SIZES

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

#: Start and end tokens included; the longest caption of the grammar needs twelve.
MAX_TOKENS = 16
#: Just enough for the longest caption.
CAPTION_TOKENS = 12
START, END = "<|startoftext|>", "<|endoftext|>"


def grammar_words() -> list[str]:
    """Every word that a canonical caption can contain, sorted."""
    relations = " ".join(RELATIONS).split()
    return sorted({"and", *COUNT_WORDS, *SIZES, *COLORS, *SHAPES, *PLURALS.values(), *relations})


def build_tokenizer(max_length: int = MAX_TOKENS) -> "CLIPTokenizer":
    """A ``CLIPTokenizer`` whose merges spell exactly the grammar's words; other words fall apart into pieces."""
    from transformers import CLIPTokenizer

    merges = _merges(grammar_words())
    letters = list(string.ascii_lowercase + string.digits + ".,;:!?'\"-()&")
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens = [*dict.fromkeys(tokens), START, END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=max_length,
    )


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Pairs to join, commonest first, until every word is one piece."""
    spellings = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(pieces) > 1 for pieces in spellings):
        pairs = [pair for pieces in spellings for pair in pairwise(pieces)]
        best = max(dict.fromkeys(pairs), key=pairs.count)
        merges.append(best)
        spellings = [_join(pieces, best) for pieces in spellings]
    return merges


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
