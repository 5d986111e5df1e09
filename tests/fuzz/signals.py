"""Runs that are stopped at any moment, by a signal or killed outright, go on to the weights of an undisturbed run.

    python -m tests.fuzz.signals --cases 100

Each case starts a training in a process of its own, sends it SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGKILL (sometimes
two) after a random time, then continues it, or starts it again where there is no checkpoint yet. Prints what differs,
and figures.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.run_directories import RUN

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)
STEPS = 6


def prepared(folder: Path) -> Path:
    """A run file of a tiny language model that saves every second step."""
    from tests.adapters.language.tiny_lm import write_tiny_lm

    model = write_tiny_lm(folder / "lm", "llama", False)
    (folder / "prompts.txt").write_text("".join(f"say {word}\n" for word in ("a", "b", "c", "red", "two")))
    text = RUN.format(model=model).replace("steps: 3", f"steps: {STEPS}").replace("save_every: 1", "save_every: 2")
    (folder / "run.yaml").write_text(text)
    return folder / "run.yaml"


def started(run_file: Path, out: Path) -> int:
    """The id of a new process that trains into `out`, or continues there; what it says is added to `<out>.txt`."""
    if (child := os.fork()) != 0:
        return child
    code = 70
    try:
        with Path(f"{out}.txt").open("a", encoding="utf-8") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        for number in SIGNALS[1:3]:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = trained(run_file, out)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def trained(run_file: Path, out: Path) -> int:
    """Train as the command line does; the exit code."""
    from mmalign.core.checkpoints import complete
    from mmalign.core.sentences import errors_as_sentences
    from mmalign.run.train import train

    resume = out if complete(out / "checkpoints") else None
    try:
        with errors_as_sentences():
            train(out / "run.yaml" if resume else run_file, out=None if resume else out, resume=resume)
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def ended(child: int) -> int:
    """The exit code of a process, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def weights(run: Path) -> dict[str, bytes]:
    """What the last step left, file by file."""
    state = run / "checkpoints" / f"step_{STEPS:06d}" / "state"
    return {name: (state / f"{name}.safetensors").read_bytes() for name in ("weights", "random")}


def case(seed: int, run_file: Path, whole: Path, seconds: float, out: Path) -> tuple[str, list[str]]:
    """(what was sent, what went wrong) of one run that is disturbed once or twice."""
    rng = random.Random(seed)
    shutil.rmtree(out, ignore_errors=True)
    Path(f"{out}.txt").unlink(missing_ok=True)
    sent, wrong = [], []
    for _ in range(rng.choice([1, 1, 2])):
        child, number = started(run_file, out), rng.choice(SIGNALS)
        time.sleep(rng.random() * seconds)
        os.kill(child, number)
        if rng.random() < 0.2:
            os.kill(child, number)
        sent.append(signal.Signals(number).name)
        if (code := ended(child)) not in (0, 128 + number, -number):
            wrong.append(f"exit code {code} after {sent[-1]}")
        if code == 0 and (out / "report.html").exists():
            break
    else:
        if (code := ended(started(run_file, out))) != 0:
            wrong.append(f"exit code {code} where it was to go on")
    said = Path(f"{out}.txt").read_text(encoding="utf-8", errors="replace")
    wrong += ["a traceback"] if "Traceback" in said else []
    if not wrong:
        wrong += [f"{name} differs" for name, held in weights(whole).items() if held != weights(out)[name]]
        wrong += [f"{path} was left" for path in out.rglob(".*")]
        wrong += ["no report"] if not (out / "report.html").exists() else []
    return " ".join(sent), [*wrong, said] if wrong else []


def undisturbed(folder: Path) -> tuple[Path, Path, float]:
    """The run file, an undisturbed run of it, and the seconds that took."""
    run_file = prepared(folder)
    for name in ("first", "whole"):  # the first one warms up
        start = time.monotonic()
        if ended(started(run_file, folder / name)) != 0:
            raise RuntimeError((folder / f"{name}.txt").read_text(encoding="utf-8"))
        seconds = time.monotonic() - start
    return run_file, folder / "whole", seconds


def main() -> None:
    """Run the cases and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    chosen = parser.parse_args()
    import mmalign.run.train  # noqa: F401  (once, for all processes)

    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        run_file, whole, seconds = undisturbed(Path(place))
        for seed in range(chosen.first, chosen.first + chosen.cases):
            sent, wrong = case(seed, run_file, whole, seconds, Path(place) / "case")
            counts["wrong" if wrong else "equal"] += 1
            if wrong:
                print(f"case {seed}: {sent}: " + "\n".join(wrong), flush=True)
    print(dict(counts))
    raise SystemExit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
