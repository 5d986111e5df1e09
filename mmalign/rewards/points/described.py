"""Key points as two lists, names and descriptions: the layout of T2I-Keypoints-Eval."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt
from mmalign.rewards.points._key_points import KeyPoint, point_named

__all__ = ["Described"]


@dataclass
class Described:
    """Names in one column and as many descriptions in another (PromptEnhancer/T2I-Keypoints-Eval on the Hub).

    Args:
        names: column with a list of key points.
        descriptions: column with what each asks.
        question: around a {description}.
    """

    names: str = "prompt_points"
    descriptions: str = "prompt_points_des"
    question: str = "Is the following true of this picture? {description}"

    def __post_init__(self) -> None:
        if "{description}" not in self.question:
            raise ConfigError(f"points.question: {self.question!r} has no place for the {{description}}.")

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return self.names, self.descriptions

    def __call__(self, prompt: Prompt) -> list[KeyPoint]:
        """The prompt's key points."""
        lists = [prompt.meta[column] for column in self.needs]
        if not all(isinstance(v, list | tuple) and all(isinstance(t, str) for t in v) for v in lists):
            raise ValueError(f"Prompt.meta['{self.names}'] and ['{self.descriptions}'] are lists of texts")
        if len(lists[0]) != len(lists[1]):
            raise ValueError(f"{len(lists[0])} in '{self.names}' but {len(lists[1])} in '{self.descriptions}'")
        return [
            KeyPoint(point_named(name), self.question.replace("{description}", text.strip()))
            for name, text in zip(*lists, strict=True)
        ]
