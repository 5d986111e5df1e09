"""How large a picture or a sound may be. A file of a few bytes can claim to be any size; memory cannot.

| variable | default | of one file |
|---|---|---|
| `MMALIGN_MAX_BYTES` | 1,073,741,824 | bytes, as it lies on the disk |
| `MMALIGN_MAX_PIXELS` | 50,000,000 | pixels of a picture (0.6 GB in memory) |
| `MMALIGN_MAX_SAMPLES` | 250,000,000 | samples of a sound, over all channels (1 GB; 47 minutes of stereo) |

They hold wherever media are opened: rows, folders, references, uploads. Set a variable to read larger ones.
"""

from __future__ import annotations

import os

from mmalign.core.errors import ConfigError, MediaError

__all__ = ["BYTES", "PIXELS", "SAMPLES", "Bound"]


class Bound:
    """A limit that an environment variable raises or lowers."""

    def __init__(self, variable: str, default: int, unit: str) -> None:
        self.variable, self.default, self.unit = variable, default, unit

    @property
    def most(self) -> int:
        """The limit in force; ConfigError if the variable holds no positive whole number."""
        text = os.environ.get(self.variable, "")
        if not text:
            return self.default
        if not text.isdecimal() or not int(text[:20]) > 0:
            raise ConfigError(f"{self.variable}={text[:40]!r}: a positive whole number of {self.unit} is expected.")
        return int(text[:20])

    def require(self, count: int, name: str, claim: str) -> None:
        """MediaError if `count` is beyond it; `claim` says what the file `name` is or says of itself."""
        if count > self.most:
            raise MediaError(
                f"{name}: {claim} is {count:,} {self.unit}; at most {self.most:,} are read (set {self.variable})."
            )


BYTES = Bound("MMALIGN_MAX_BYTES", 2**30, "bytes")
PIXELS = Bound("MMALIGN_MAX_PIXELS", 50_000_000, "pixels")
SAMPLES = Bound("MMALIGN_MAX_SAMPLES", 250_000_000, "samples")
