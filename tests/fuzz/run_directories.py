"""Damaged run directories: every command that reads one does its work or says what is wrong, in a sentence.

    python -m tests.fuzz.run_directories --cases 400

A finished run is copied, one or two of its files are damaged as a crash, a bad disk, an editor or a copy may leave
them, and the copy is reported, compared, opened, evaluated and resumed. Prints every traceback, and how often what came
of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmalign.core.errors import MmalignError

RUN = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 2, alpha: 4}}}}
policy: {{name: tokens, max_new_tokens: 3}}
rewards: {{short: {{name: length, low: 1, high: 9, unit: characters}}}}
objective: {{name: grpo, group_size: 2}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 3, prompts_per_step: 1, lr: 1.0e-2, save_every: 1, preview_every: 3, evaluate_every: 3}}
"""
KINDS = ("truncated", "empty", "garbled", "flipped", "text", "list", "number", "nested", "missing", "folder")


def finished_run(folder: Path) -> Path:
    """A run of a tiny language model; `folder/run` when it is done."""
    from mmalign.core.config import load
    from mmalign.run.train import train
    from tests.adapters.language.tiny_lm import write_tiny_lm

    model = write_tiny_lm(folder / "lm", "llama", False)
    (folder / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    (folder / "run.yaml").write_text(RUN.format(model=model))
    with contextlib.redirect_stdout(io.StringIO()):
        train(load(folder / "run.yaml"), out=folder / "run")
    return folder / "run"


def damage(file: Path, kind: str, rng: random.Random) -> None:
    """Leave `file` as `kind` says."""
    held = file.read_bytes()
    file.unlink()
    changed = bytearray(held)
    for _ in range(rng.randint(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    made = {
        "truncated": held[: rng.randrange(len(held) + 1)],
        "empty": b"",
        "garbled": rng.randbytes(max(1, len(held) // 2)),
        "flipped": bytes(changed),
        "text": b"nothing of the kind\n",
        "list": b"[1, null, {}]\n",
        "number": b"7\n",
        "nested": json.dumps({"rows": [{}], "sets": {"x": 3}, "step": "x", "version": None}).encode(),
    }
    if kind == "folder":
        file.mkdir()
    elif kind != "missing":
        file.write_bytes(made[kind])


def commands(run: Path, whole: Path) -> dict[str, Callable[[], object]]:
    """What is done with a damaged run, the cheap things first; what writes comes last."""
    from mmalign.core.config import load
    from mmalign.evaluation.compare import compare_runs
    from mmalign.evaluation.report import write_report
    from mmalign.run.evaluate import evaluate
    from mmalign.run.load import load_run
    from mmalign.run.train import train

    return {
        "report": lambda: write_report(run, run.parent / "report.html"),
        "compare": lambda: compare_runs(whole, run),
        "load": lambda: load_run(run).generate(["say a"]),
        "evaluate": lambda: evaluate(run),
        "resume": lambda: train(load(run / "run.yaml", ["trainer.steps=4"]), resume=run),
        "resume again": lambda: train(load(run / "run.yaml", ["trainer.steps=4"]), resume=run),
    }


def outcome(call: Callable[[], object]) -> tuple[str, str]:
    """("done" | "refused" | "traceback", what was said), as the command line tells them apart."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            call()
    except MmalignError as error:
        return "refused" if str(error).strip() else "traceback", str(error)
    except OSError as error:
        if error.filename is not None:
            return "refused", f"{error.filename}: {error.strerror}"
        return "traceback", traceback.format_exc()
    except Exception:
        return "traceback", traceback.format_exc()
    return "done", ""


def case(seed: int, whole: Path, folder: Path) -> list[tuple[str, str, str, str]]:
    """(what was damaged, command, outcome, said) of one damaged copy, by one of the two ways through the commands."""
    rng = random.Random(seed)
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    damaged = []
    for file in rng.sample(files, rng.choice([1, 1, 2])):
        kind = rng.choice(KINDS)
        damage(file, kind, rng)
        damaged.append(f"{file.relative_to(run)} {kind}")
    found = []
    skipped = "resume" if rng.random() < 0.5 else "evaluate"  # each alone meets the damage first
    for name, call in commands(run, whole).items():
        if name != skipped and not (name == "resume again" and skipped == "resume"):
            found.append((", ".join(damaged), name, *outcome(call)))
    return found


def main() -> None:
    """Run the cases and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    chosen = parser.parse_args()
    logging.getLogger("mmalign").setLevel(logging.CRITICAL)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as place:
        whole = finished_run(Path(place))
        for seed in range(chosen.first, chosen.first + chosen.cases):
            for damaged, command, kind, said in case(seed, whole, Path(place) / "copy"):
                counts[command, kind] += 1
                if kind == "traceback":
                    print(f"case {seed}: {damaged}: {command}\n{said}", flush=True)
    for (command, kind), count in sorted(counts.items()):
        print(f"{command:14}{kind:12}{count}")
    raise SystemExit(1 if any(kind == "traceback" for _, kind in counts) else 0)


if __name__ == "__main__":
    main()
