"""The table of docs/results.md: one run file, several seeds, one committed JSON.

    python -m pipelines.results configs/scenes/grpo_verifier.yaml --seeds 0 1 2
    python -m pipelines.results mine.yaml trainer.steps=200    # one of your own, kept among the runs
    python -m pipelines.results          # print the table of everything committed

Every seed is a full `mmalign train`; one that has finished in its folder already, with the same options, is read, not
run again. The JSON holds each seed's before and after with intervals and the commit it ran at, and the means. With
`trainer.evaluate_every` a picture is drawn beside it: the reward that was trained on against the truth, on held-out
prompts, over training. Only what `configs/` says, unchanged, is written where it is committed; all else among the runs.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import statistics
from pathlib import Path
from typing import Any

from mmalign import errors_as_sentences
from mmalign.core.checkpoints import complete
from mmalign.core.config import RunFile, load
from mmalign.core.errors import ConfigError
from mmalign.core.files import write_beside
from mmalign.evaluation.report.charts import Series, aligned_chart, standalone
from mmalign.run.build import examine
from pipelines._command_line import parser
from pipelines._finished import require_same
from pipelines._stages import stage

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "assets" / "results"
HEAD = "| run | trained on | judged by | truth | command |\n|---|---|---|---|---|"


def run_name(config: Path, changes: list[str]) -> str:
    """The name of a run file's folders, to which each seed is added; other changes give another name."""
    digest = hashlib.sha256("\n".join(sorted(changes)).encode()).hexdigest()[:8]
    return f"{config.stem}-{digest}" if changes else config.stem


def place(config: Path, changes: list[str], runs: Path) -> Path:
    """Where the JSON goes: into the checkout's results only if what runs is a committed run file as it is.

    Raises:
        ConfigError: another run file of the same name has its result there.
    """
    committed = not changes and config.resolve().is_relative_to(ROOT.resolve() / "configs")
    path = (RESULTS if committed else runs) / f"{run_name(config, changes)}.json"
    other = json.loads(path.read_text())["command"].split()[3] if path.exists() else config
    if (ROOT / other).resolve() != config.resolve():
        raise ConfigError(f"{path}: holds the result of {other}; run a copy of {config} under another name.")
    return path


def planned(config: Path, seed: int, changes: list[str], out: Path) -> RunFile:
    """The run file of one seed; what its folder holds already is that run.

    Raises:
        ConfigError: a fault of the run file, or another run in the folder.
    """
    run = load(config, [*changes, f"trainer.seed={seed}"])
    if (out / "summary.json").exists() or complete(out / "checkpoints"):
        require_same(out, run)
    else:
        examine(run)
    return run


def run_seed(config: Path, seed: int, changes: list[str], out: Path) -> dict[str, Any]:
    """Train one seed, or what is missing of it, and return its summary.

    Raises:
        ConfigError: what is there is another run.
    """
    run = planned(config, seed, changes, out)
    if not (out / "summary.json").exists():
        stage(run, out)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    commit = json.loads((out / "environment.json").read_text())["commit"]
    outcome = {"rows": summary["rows"], "seconds": summary["seconds"], "curve": curve(out)}
    return {"seed": seed, "commit": commit, **outcome}


def curve(out: Path) -> list[dict[str, float]]:
    """Held-out scores along the way: learned rewards against the truth, one entry per evaluation."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    start = len("eval/")
    points = [({k[start:]: v for k, v in line.items() if k.startswith("eval/")}, line.get("step", 0)) for line in lines]
    return [{"step": step, **scores} for scores, step in points if scores]


def scissors(runs: list[dict[str, Any]], last: int) -> str | None:
    """Reward and truth over training, seeds averaged, as an SVG; None where one is missing or only ends are known."""
    pair = [_of_role(runs[0]["rows"], role) for role in ("trained", "verifier")]
    if not all(pair):
        return None
    series = []
    for name, tone in zip((rows[0]["name"] for rows in pair), ("learned", "truth"), strict=True):
        ends = [next(row for row in run["rows"] if row["name"] == name) for run in runs]
        points = {0: [row["before"] for row in ends], last: [row["after"] for row in ends]}
        for run in runs:
            for entry in run["curve"]:
                if name in entry and entry["step"] < last:
                    points.setdefault(int(entry["step"]), []).append(entry[name])
        series.append(Series(name, [(step, statistics.fmean(points[step])) for step in sorted(points)], tone))
    return standalone(aligned_chart(series[0], series[1])) if len(series[0].points) > 2 else None


def _of_role(rows: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["role"] == role]


def across_seeds(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean before, after and change per reward, with the changes' range over seeds."""
    rows = []
    for first in runs[0]["rows"]:
        same = [next(row for row in run["rows"] if row["name"] == first["name"]) for run in runs]
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


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, whole or not at all, and say so."""
    replaced = " (in place of what was there)" if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written        {path}{replaced}")


def reported(result: dict[str, Any], stem: str, shown: str = "") -> str:
    """One line of the table of results: what was trained on, what others and the truth say, how to get the same.

    `shown` is what leads to the JSON; by default the committed one.
    """
    trained, judges, truths = (_of_role(result["mean"], role) for role in ("trained", "judge", "verifier"))
    cells = (
        f"[{stem}]({shown or f'assets/results/{stem}.json'})",
        "; ".join(f"{_moved(row)}, wins {statistics.fmean(row['win_rate_by_seed']):.0%}" for row in trained),
        "; ".join(map(_moved, judges)),
        "; ".join(map(_held, truths)),
        f"`{result['command']}`",
    )
    return f"| {' | '.join(cells)} |"


def _held(row: dict[str, Any]) -> str:
    changes = ", ".join(f"{delta:+.3f}" for delta in row["delta_by_seed"])
    lowest = min(low for low, _ in row["ci_by_seed"])
    return f"{row['before']:.3f} → **{row['after']:.3f}** ({changes}; lowest 95 % bound {lowest:+.3f})"


def _moved(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['before']:.3f} → {row['after']:.3f}"


def table() -> str:
    """Every committed result as Markdown."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return "\n".join([HEAD, *(reported(result, stem) for stem, result in results.items())])


def main() -> None:
    """Run the seeds, write their JSON and print their line; without a run file, the table of all that are committed."""
    reader = parser(__doc__)
    reader.add_argument("config", type=Path, nargs="?")
    reader.add_argument("changes", nargs="*", help="key.path=value")
    reader.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    reader.add_argument("--runs", type=Path, default=Path("runs/results"))
    args = reader.parse_intermixed_args()
    with errors_as_sentences():
        print(measured(args.config, args.changes, args.seeds, args.runs) if args.config else table())


def measured(config: Path, changes: list[str], seeds: list[int], runs: Path) -> str:
    """Train what is missing of the seeds, write their result, and return it as a table."""
    name, path = run_name(config, changes), place(config, changes, runs)
    folders = {seed: runs / f"{name}-{seed}" for seed in dict.fromkeys(seeds)}
    for seed, folder in folders.items():  # all before the first of them trains
        planned(config, seed, changes, folder)
    summaries = [run_seed(config, seed, changes, folder) for seed, folder in folders.items()]
    words = [str(config), *changes, "--seeds", *map(str, folders)]
    result = {
        "command": f"python -m pipelines.results {shlex.join(words)}",
        "mean": across_seeds(summaries),
        "seeds": summaries,
    }
    keep(path, result)
    if picture := scissors(summaries, load(config, changes).trainer.steps):
        with write_beside(path.with_suffix(".svg")) as beside:
            beside.write_text(picture, encoding="utf-8")
    return "\n".join([HEAD, reported(result, name, "" if path.is_relative_to(RESULTS) else str(path))])


if __name__ == "__main__":
    main()
