"""A language model that was trained elsewhere learns to keep to instructions: a short lesson (SFT), then GRPO.

    python -m pipelines.real.instructions --seeds 0 1 2    # writes assets/results/real/instructions.json

Rows are those of `instruction_rows.py`. The lesson is 64 answers made by rule; GRPO, from where it ends, is what the
result is about. A seed that has finished in its folder is read, not run again. What would refute the claim stands in
`CLAIM`, and in the result beside what was measured.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from mmalign import errors_as_sentences
from mmalign.core.checkout import commit
from mmalign.core.config import load
from pipelines._command_line import change, parser
from pipelines._stages import stage
from pipelines.real.instruction_answers import answer
from pipelines.real.instruction_rows import rows, write
from pipelines.real.models import model_folder
from pipelines.results import RESULTS, across_seeds, keep, run_seed

HERE = Path(__file__).parent
LESSON, RUN = HERE / "instructions_sft.yaml", HERE / "instructions.yaml"
BOUND = 0.20
CLAIM = {
    "claim": "GRPO raises the share of held-out requests that are followed whole (greedy answers, judged by rules) by "
    "20 points or more, on pairs of kinds and on values that it was not trained on.",
    "refuted_if": "the mean over the seeds of that change is below 0.20",
    "bound": BOUND,
}


def prepared(folder: Path) -> Path:
    """Write the rows: lesson.jsonl, train.jsonl and held_out.jsonl."""
    draw, lesson = np.random.default_rng(7), rows(64, held_out=False, seed=1)
    write(folder / "lesson.jsonl", [{"prompt": row["prompt"], "target": answer(row, draw)} for row in lesson])
    write(folder / "train.jsonl", rows(600, held_out=False, seed=0))
    write(folder / "held_out.jsonl", rows(96, held_out=True, seed=0))
    return folder


def lesson_learned(folder: Path) -> Path:
    """The run of the lesson, trained where it is missing."""
    places = [change("adapter.model", model_folder("smollm2")), change("data.path", folder.resolve() / "lesson.jsonl")]
    return stage(load(LESSON, places), folder / "lesson")


def changes(folder: Path, lesson: Path) -> list[str]:
    """What the run file leaves open: the model, where it starts, and the rows."""
    return [
        change("adapter.model", model_folder("smollm2")),
        change("adapter.start_lora", lesson.resolve()),
        change("data.path", folder.resolve() / "train.jsonl"),
        change("data.held_out_path", folder.resolve() / "held_out.jsonl"),
    ]


def measured(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Train what is missing of the seeds, and return their result."""
    lesson = lesson_learned(prepared(folder))
    runs = [run_seed(RUN, seed, changes(folder, lesson), folder / f"seed-{seed}") for seed in dict.fromkeys(seeds)]
    mean = across_seeds(runs)
    gain = statistics.fmean(row["delta"] for row in mean if row["role"] == "verifier")
    return {
        "command": f"python -m pipelines.real.instructions --seeds {' '.join(map(str, dict.fromkeys(seeds)))}",
        **CLAIM,
        "model": json.loads((model_folder("smollm2") / "provenance.json").read_text()),
        "commit": commit(),
        "gain": round(gain, 4),
        "holds": gain >= BOUND,
        "mean": mean,
        "seeds": runs,
    }


if __name__ == "__main__":
    reader = parser(__doc__)
    reader.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    reader.add_argument("--runs", type=Path, default=Path("runs/real/instructions"))
    reader.add_argument("--out", type=Path, default=RESULTS / "real" / "instructions.json")
    args = reader.parse_args()
    with errors_as_sentences():
        keep(args.out, measured(args.runs, args.seeds))
