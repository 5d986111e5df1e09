"""Two styles that lie far apart, for sets of exemplars: each fixes some attributes and leaves the others open."""

import numpy as np

from mmalign.miniworld.tunes.compositions import plays_unseen
from mmalign.miniworld.tunes.grammar import Request
from mmalign.miniworld.tunes.language import make_request
from mmalign.miniworld.tunes.tune import ATTRIBUTES, Tune

STYLES: dict[str, dict[str, str]] = {
    "chimes": {"tempo": "slow", "rhythm": "even", "register": "low", "timbre": "bell"},
    "jig": {"tempo": "fast", "rhythm": "dotted", "register": "high", "timbre": "harp"},
}


def sample_style(style: str, rng: np.random.Generator) -> tuple[Tune, Request]:
    """A tune of a style, without held-out compositions, and the caption that states all of it."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r} in sample_style: use one of {', '.join(STYLES)}")
    while True:
        drawn = Tune(**{name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()})._replace(**STYLES[style])
        if not plays_unseen(drawn):
            return drawn, make_request(drawn._asdict())
