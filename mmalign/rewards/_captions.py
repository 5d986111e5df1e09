"""What caption metrics share: the optional libraries, and texts cut into words."""

from __future__ import annotations

import importlib
import re
from typing import Any

from mmalign.core.errors import MissingExtra

_PUNCTUATION = re.compile(r"[^\w\s]")


def library(module: str, what: str) -> Any:
    """An optional module of the `caption` extra. MissingExtra if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(what, "caption") from None


def caption_words(text: str) -> str:
    """Lower case, punctuation dropped, single blanks: what PTB tokenisation leaves of a caption, without Java."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())
