"""Which source code is running."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Return the source checkout's commit, with "+" if it has uncommitted changes; "" outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
