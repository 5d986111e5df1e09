"""What the two sides of a page are called: before and after training, or two runs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Words"]


@dataclass(frozen=True)
class Words:
    """By default those of one run's report. `heads` are the columns of tables: the two sides and their difference; an
    `arrow` leads from one to the other where one came of the other.
    """

    first: str = "before"
    second: str = "after"
    heads: tuple[str, str, str] = ("Before", "After", "Change")
    arrow: bool = True
    title: str = "Before and after"
    noise: str = "each pair was made from the same noise"
    gone: str = "Words that went"
    new: str = "words that came"
    nothing: str = "No evaluation/before or evaluation/after with outputs."

    @classmethod
    def of_runs(cls, first: str, second: str, same_noise: bool) -> Words:
        """Of two runs; whether what stands side by side was made from the same noise is known to who compares."""
        return cls(
            first=first,
            second=second,
            heads=(first, second, "Difference"),
            arrow=False,
            title="Side by side",
            noise="each pair was made from the same noise" if same_noise else "the two sides drew different noise",
            gone=f"Words only in {first}",
            new=f"words only in {second}",
            nothing="No outputs of the same prompts were kept in both.",
        )
