"""Rules of texts for run files that are allowed to name this module."""

from mmalign.core.types import Prompt
from mmalign.rewards import rule


@rule(modalities={"text"}, range=(0.0, 1.0))
def share_of(prompt: Prompt, output: str, *, word: str = "good") -> float:
    """Which share of an answer's words is `word`."""
    words = output.split()
    return words.count(word) / max(len(words), 1)


@rule(modalities={"text"}, range=(0.0, 1.0))
def brief(prompt: Prompt, output: str) -> float:
    """Higher the shorter."""
    return 1 / (1 + len(output.split()))


@rule(modalities={"text"}, range=(0.0, 1.0))
def wordy(prompt: Prompt, output: str) -> float:
    """Higher the longer, up to ten words."""
    return min(1.0, len(output.split()) / 10)
