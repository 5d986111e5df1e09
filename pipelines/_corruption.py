"""Captions made ungrammatical, as negatives for a grammar head (Cho et al. 2022, arXiv 2205.13115).

One of five ways, drawn with equal chance: `repeat` an n-gram, `remove` one, `insert` words of the vocabulary, `swap`
words, `shuffle` all. What comes out as it went in is drawn again, and so is whatever the caller knows to be well formed
("a circle" is what removing makes of "a red circle"); the authors' code keeps both as negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Words = list[str]
_MOST = 3  # words of an n-gram, times it is repeated, words inserted, pairs swapped
_TRIES = 50


def corrupted(
    caption: str,
    vocabulary: Sequence[str],
    rng: np.random.Generator,
    well_formed: Callable[[str], bool] = lambda text: False,
    way: str | None = None,
) -> str | None:
    """An ungrammatical text made of `caption`, or None where 50 draws gave none (a caption of one word).

    Args:
        caption: words between blanks.
        vocabulary: words to insert.
        rng: source of chance.
        well_formed: texts that are no negatives; the caption itself never is.
        way: one of `WAYS`, instead of a draw.
    """
    words = caption.split()
    for _ in range(_TRIES):
        chosen = way or list(WAYS)[int(rng.integers(len(WAYS)))]
        made = " ".join(WAYS[chosen](list(words), vocabulary, rng)) if words else ""
        if made and made != " ".join(words) and not well_formed(made):
            return made
    return None


def _some(rng: np.random.Generator, most: int = _MOST) -> int:
    return int(rng.integers(1, most + 1))


def _ngram(words: Words, rng: np.random.Generator) -> slice:
    size = min(_some(rng), len(words))
    start = int(rng.integers(len(words) - size + 1))
    return slice(start, start + size)


def _repeat(words: Words, vocabulary: Sequence[str], rng: np.random.Generator) -> Words:
    again = words[_ngram(words, rng)]
    for _ in range(_some(rng)):
        at = int(rng.integers(len(words) + 1))
        words[at:at] = again
    return words


def _remove(words: Words, vocabulary: Sequence[str], rng: np.random.Generator) -> Words:
    del words[_ngram(words, rng)]
    return words


def _insert(words: Words, vocabulary: Sequence[str], rng: np.random.Generator) -> Words:
    for _ in range(_some(rng)):
        words.insert(int(rng.integers(len(words) + 1)), vocabulary[int(rng.integers(len(vocabulary)))])
    return words


def _swap(words: Words, vocabulary: Sequence[str], rng: np.random.Generator) -> Words:
    for _ in range(_some(rng)):
        first, second = (int(rng.integers(len(words))) for _ in range(2))
        words[first], words[second] = words[second], words[first]
    return words


def _shuffle(words: Words, vocabulary: Sequence[str], rng: np.random.Generator) -> Words:
    return [words[i] for i in rng.permutation(len(words))]


WAYS: dict[str, Callable[[Words, Sequence[str], np.random.Generator], Words]] = {
    "repeat": _repeat,
    "remove": _remove,
    "insert": _insert,
    "swap": _swap,
    "shuffle": _shuffle,
}
