"""Saving a trained model so that a half-written one is never seen, with a record of how it was made."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmalign.core.checkout import commit
from mmalign.core.files import write_folder_beside


def save_atomically(out: Path, write: Callable[[Path], None], provenance: dict[str, Any]) -> None:
    """Save a model folder, whole or not at all, in place of an older one.

    Args:
        out: where the folder shall lie.
        write: called with an empty folder to fill.
        provenance: what to record in ``provenance.json`` besides the command and the commit.
    """
    record = {"command": command_line(), "commit": commit(), **provenance}
    with write_folder_beside(out) as fresh:
        write(fresh)
        (fresh / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def command_line() -> str:
    """The command that is running, with the module's name instead of its path."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec else f"pipelines.miniworld.{Path(sys.argv[0]).stem}"
    return " ".join(["python -m", name.removesuffix(".__main__"), *sys.argv[1:]])
