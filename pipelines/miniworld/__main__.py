"""Train the bundled models from nothing (several hours on two CPU cores for all).

python -m pipelines.miniworld clip --out assets
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmalign import errors_as_sentences
from pipelines.miniworld.models import MODELS


def main() -> None:
    """Train the models that the command line names, each into its folder below `--out`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.miniworld", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("models", nargs="*", choices=[*MODELS, "all"], default="all", help="which; all by default")
    parser.add_argument("--out", type=Path, default=Path("assets"), help="where the models' folders go")
    args = parser.parse_args()
    for name in MODELS if "all" in args.models else args.models:
        print(f"training {name} …", file=sys.stderr, flush=True)
        MODELS[name](args.out)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
