"""What the experiments on founding papers share: a claim with its falsifier, arms by seed, and one JSON.

The claim, what would falsify it and the verdict on the numbers are committed as code before anything is measured; the
JSON repeats the sentences and names the commit that it was measured at. A claim that does not hold stays in the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.evaluation.bootstrap import mean_interval
from pipelines._command_line import parser
from pipelines.results import RESULTS, keep

Arms = Mapping[str, Mapping[str, float]]  # arm → measure → value, of one seed
Means = Mapping[str, Mapping[str, float]]  # arm → measure → mean over seeds
PAPERS = RESULTS / "papers"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment of paper `number`.

    Args:
        number: of the paper, 1 to 46.
        name: of the module `pipelines.papers.<name>`.
        claim: what is expected, a sentence.
        falsified_if: what would show that it is not so, a sentence.
        control: the arm that must not do it, a sentence.
        measure: arms with their measures, by seed.
        holds: whether the means over seeds bear the claim out: `falsified_if`, as code.
        caveat: what the figures do not show.
    """

    number: int
    name: str
    claim: str
    falsified_if: str
    control: str
    measure: Callable[[int], Arms]
    holds: Callable[[Means], bool]
    caveat: str = ""

    @property
    def path(self) -> Path:
        """Where the result is committed."""
        return PAPERS / f"{self.number:02}_{self.name}.json"


def summary(by_seed: Sequence[Arms]) -> dict[str, dict[str, dict[str, Any]]]:
    """The mean of every measure of every arm over seeds, its 95 % interval (Student's, for a few) and the values."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for arm in by_seed[0]:
        table[arm] = {}
        for measure in by_seed[0][arm]:
            values = [float(arms[arm][measure]) for arms in by_seed]
            interval = mean_interval(np.array(values))
            bounds = [round(bound, 5) if np.isfinite(bound) else None for bound in (interval.low, interval.high)]
            table[arm][measure] = {
                "mean": round(interval.value, 5),
                "interval": bounds,
                "by_seed": [round(value, 5) for value in values],
            }
    return table


def run(experiment: Experiment, seeds: Sequence[int], out: Path | None = None) -> dict[str, Any]:
    """Measure every seed and write the JSON."""
    begun, code = time.monotonic(), commit()
    by_seed = []
    for seed in seeds:
        by_seed.append(experiment.measure(seed))
        print(f"seed {seed}: {time.monotonic() - begun:.0f} s", flush=True)
    arms = summary(by_seed)
    means = {arm: {name: one["mean"] for name, one in measures.items()} for arm, measures in arms.items()}
    result = {
        "command": f"python -m pipelines.papers.{experiment.name} --seeds {' '.join(map(str, seeds))}",
        "commit": code,
        "paper": experiment.number,
        "claim": experiment.claim,
        "falsified_if": experiment.falsified_if,
        "control": experiment.control,
        "holds": bool(experiment.holds(means)),
        **({"caveat": experiment.caveat} if experiment.caveat else {}),
        "seconds": round(time.monotonic() - begun),
        "arms": arms,
    }
    keep(out or experiment.path, result)
    return result


def shown(result: Mapping[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"claim: {result['claim']}", f"holds: {'yes' if result['holds'] else 'no'}"]
    for arm, measures in result["arms"].items():
        values = ", ".join(f"{name} {one['mean']:.3f}" for name, one in measures.items())
        lines.append(f"  {arm}: {values}")
    return "\n".join(lines)


def main(experiment: Experiment, description: str | None, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Run the experiment from the command line."""
    reader: argparse.ArgumentParser = parser(description)
    reader.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    reader.add_argument("--out", type=Path, help=f"the JSON; {experiment.path} by default")
    args = reader.parse_args()
    with errors_as_sentences():
        print(shown(run(experiment, args.seeds, args.out)))


__all__ = ["PAPERS", "Arms", "Experiment", "Means", "main", "run", "summary"]
