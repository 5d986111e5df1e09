"""Which compositions are kept out of training: the held-out split asks for what was never heard together."""

from itertools import combinations

from mmalign.miniworld.tunes.language import Request
from mmalign.miniworld.tunes.tune import Tune

#: Every value is heard in training, but never these together; about three tunes in eight hold one of them.
UNSEEN = frozenset(
    {
        ("falling", "flute"),
        ("rising", "violin"),
        ("repeated", "clarinet"),
        ("flute", "minor chords"),
        ("harp", "minor chords"),
        ("bell", "major chords"),
    }
)


def unseen_compositions(request: Request) -> list[tuple[str, str]]:
    """The parts of a request that training never has; empty for a request of the train split."""
    return _unseen([clause.value for clause in request.clauses])


def plays_unseen(tune: Tune) -> bool:
    """Whether a tune holds a held-out composition."""
    return bool(_unseen(list(tune)))


def _unseen(values: list[str]) -> list[tuple[str, str]]:
    return [pair for pair in combinations(values, 2) if pair in UNSEEN]
