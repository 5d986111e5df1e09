"""`python -m mmalign` is `mmalign`: what lies in the current folder is no module of it."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 (before any import)
        del sys.path[0]  # what -m puts there
    from mmalign.cli.main import main

    main()
