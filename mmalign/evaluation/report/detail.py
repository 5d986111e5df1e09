"""How much of a run's media a page shows: as much as keeps it under `LARGEST` bytes, and what was left out is said."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LARGEST", "LEVELS", "Detail"]

LARGEST = 5_000_000  # bytes of a page


@dataclass
class Detail:
    """Bounds, and the sentences on what they left out (each once), which is filled while the page is made.

    `pixels` bounds the longer side of outputs, `sheet_pixels` that of sheets of samples, `seconds` the sounds (0: not),
    `letters` each text; `cards` and `sheets` are how many there are at most.
    """

    pixels: int = 512
    sheet_pixels: int = 1400
    seconds: float = 0.0
    letters: int = 20_000
    cards: int = 12
    sheets: int = 5
    sentences: dict[str, None] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Note what is not shown in full."""
        self.sentences[sentence] = None


#: Tried in this order until the page is small enough; the last is taken as it is.
LEVELS: tuple[dict[str, float], ...] = (
    {},
    {"pixels": 384, "sheet_pixels": 1000, "seconds": 20.0, "sheets": 3},
    {"pixels": 320, "sheet_pixels": 800, "seconds": 10.0, "sheets": 2, "letters": 8_000},
    {"pixels": 256, "sheet_pixels": 640, "seconds": 6.0, "sheets": 1, "cards": 6, "letters": 3_000},
    {"pixels": 160, "sheet_pixels": 480, "seconds": 3.0, "sheets": 1, "cards": 4, "letters": 1_000},
)
