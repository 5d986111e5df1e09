"""The README's table: one run file, several seeds, one committed JSON.

    python -m pipelines.results configs/scenes/grpo_verifier.yaml --seeds 0 1 2

Every seed is a full `mmalign train`; one that has finished in its folder already is read, not run again. The JSON holds
each seed's before and after with intervals, and their mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from mmalign.core.config import load
from mmalign.core.files import write_beside
from mmalign.run.directory import commit
from mmalign.run.train import train

RESULTS = Path(__file__).parents[1] / "assets" / "results"


def run_seed(config: Path, seed: int, changes: list[str], out: Path) -> dict[str, Any]:
    """Train one seed, unless it is there, and return its summary."""
    if not (out / "summary.json").exists():
        train(load(config, [*changes, f"trainer.seed={seed}"]), out=out)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return {"seed": seed, "rows": summary["rows"], "seconds": summary["seconds"]}


def across_seeds(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean before, after and change per reward, with the changes' range over seeds."""
    rows = []
    for i, first in enumerate(runs[0]["rows"]):
        same = [run["rows"][i] for run in runs]
        deltas = [row["delta"] for row in same]
        rows.append(
            {
                "name": first["name"],
                "role": first["role"],
                "before": statistics.fmean(row["before"] for row in same),
                "after": statistics.fmean(row["after"] for row in same),
                "delta": statistics.fmean(deltas),
                "delta_by_seed": deltas,
                "ci_by_seed": [row["ci"] for row in same],
                "win_rate_by_seed": [row["win_rate"] for row in same],
                "n": first["n"],
            }
        )
    return rows


def main() -> None:
    """Run the seeds and write `assets/results/<config>.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("changes", nargs="*", help="key.path=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    given = parser.parse_args()
    runs = [
        run_seed(given.config, seed, given.changes, given.runs / f"{given.config.stem}-{seed}") for seed in given.seeds
    ]
    words = [str(given.config), *given.changes, "--seeds", *map(str, given.seeds)]
    command = " ".join(["python -m pipelines.results", *words])
    result = {"command": command, "commit": commit(), "mean": across_seeds(runs), "seeds": runs}
    path = RESULTS / f"{given.config.stem}.json"
    with write_beside(path) as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["mean"]:
        deltas = ", ".join(f"{d:+.3f}" for d in row["delta_by_seed"])
        change = f"{row['before']:.3f} -> {row['after']:.3f}  {row['delta']:+.3f}"
        print(f"{row['name']:>12} {row['role']:<9} {change}  ({deltas})")


if __name__ == "__main__":
    main()
