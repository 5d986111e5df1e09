"""The command that started this process, as it can be typed again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["command"]


def command() -> str:
    """`mmalign …`, `python -m recipe …` or `python script.py …`; "" in a notebook or an interactive session."""
    program = Path(sys.argv[0]).stem if sys.argv else ""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else ""
    if module.startswith("ipykernel") or program in ("", "-c", "-"):
        return ""
    if "mmalign" in (module, program):
        start = ["mmalign"]
    elif module and module != "__main__":
        start = ["python", "-m", module]
    else:
        start = ["python", sys.argv[0]]
    return shlex.join([*start, *sys.argv[1:]])
