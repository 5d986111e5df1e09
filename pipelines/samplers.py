"""What finished runs satisfy at other samplers than their own: without guidance, and with more steps.

    python -m pipelines.samplers --runs runs/results/nft_verifier-0 runs/results/nft_verifier-1

Start and result on the same held-out prompts and noise; writes assets/results/selection/samplers.json: a row is one
way of sampling, by the name of the run file. Runs of one run file are its seeds; others stay as they were measured.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import mmalign
from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from pipelines._command_line import options
from pipelines.results import RESULTS, keep
from pipelines.untouched import WAYS

OUT = RESULTS / "selection" / "samplers.json"


def measured(run: Path, steps: int, guidance: float) -> dict[str, Any]:
    """The truth of one run at `steps` and `guidance`: before, after, and the interval of the change."""
    changes = [f"policy.eval_steps={steps}", f"policy.eval_guidance_scale={guidance}"]
    rows = mmalign.evaluate(run, changes=changes).rows
    truth = next(row for row in rows if row.role == "verifier")
    return {"before": truth.before, "after": truth.after, "ci": list(truth.ci)}


def main(runs: list[Path], out: Path = OUT) -> None:
    """Measure the runs at every way of sampling and write the JSON."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    names = {run: run.name.rpartition("-")[0] or run.name for run in runs}
    for name in dict.fromkeys(names.values()):
        for steps, guidance in WAYS[1:]:
            seeds = [measured(run, steps, guidance) for run in runs if names[run] == name]
            way = {"steps": steps, "guidance": guidance}
            mean = {key: statistics.fmean(seed[key] for seed in seeds) for key in ("before", "after")}
            by_name.setdefault(name, []).append({**way, **mean, "seeds": seeds})
            print(
                f"{name}, {steps} steps, guidance {guidance:g}: {mean['before']:.3f} -> {mean['after']:.3f}", flush=True
            )
    others = json.loads(out.read_text())["runs"] if out.exists() else {}
    command = f"python -m pipelines.samplers --runs {' '.join(map(str, runs))}"
    keep(out, {"command": command, "commit": commit(), "runs": {**others, **by_name}})


if __name__ == "__main__":
    given = options(
        __doc__,
        runs={"type": Path, "nargs": "+", "help": "run directories that have ended"},
        out={"type": Path, "default": OUT, "help": "the JSON to write; %(default)s"},
    )
    with errors_as_sentences():
        main(given.runs, given.out)
