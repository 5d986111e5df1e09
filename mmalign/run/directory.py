"""The run directory: what a run leaves behind, and where each thing lies.

runs/<name>/
  run.yaml  environment.json  metrics.jsonl  summary.json  report.html  README.md
  samples/step_000050/   contact_sheet.png, rows.parquet
  evaluation/before/, evaluation/after/
  evaluation/best/       the best evaluation along the way, and its step
  alarms.jsonl           what the run's numbers warned of
  references/            statistics of what set rewards compare with, as it was when the run began
  prior/                 what the start made for prior preservation, where the objective asks for it
  checkpoints/step_000100/
  abandoned/1/           what an earlier run left here that ended before its first checkpoint, or what came after the
                         step that a run was resumed from
  in_use.json            who writes here, as long as somebody does
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmalign.core.checkout import commit
from mmalign.core.checkpoints import best_step, complete, numbered, step_of
from mmalign.core.config import RunFile, dump
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import recover, to_disk, write_beside
from mmalign.core.packages import installed
from mmalign.run.command import command
from mmalign.run.lock import locked

log = logging.getLogger("mmalign")
PACKAGES = ("mmalign", "torch", "diffusers", "transformers", "peft", "accelerate", "open-clip-torch", "numpy")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and whole-or-absent writes of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.path / "metrics.jsonl"

    @property
    def references(self) -> Path:
        """What its rewards compare with, as it was when the run began."""
        return self.path / "references"

    @property
    def prior(self) -> Path:
        """What the start made for prior preservation."""
        return self.path / "prior"

    def evaluation(self, when: str) -> Path:
        """Return the folder of the evaluation `when` ("before", "after")."""
        return self.path / "evaluation" / when

    def samples(self, step: int) -> Path:
        """Return the folder of the samples of one step."""
        return self.path / "samples" / f"step_{step:06d}"

    def refuse(self, fresh: bool) -> None:
        """Say before anything is loaded that a run cannot be written here.

        Raises:
            ConfigError: it is no folder, cannot be written, or already holds a run that this one does not continue.
        """
        resumable = bool(complete(self.checkpoints))
        if fresh and (resumable or (self.path / "summary.json").exists()):
            way = ", or continue it with --resume" if resumable else ""
            raise ConfigError(f"{self.path}: already holds a run; choose another --out{way}.")
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            why = "cannot be written" if there.is_dir() else "is not a folder"
            raise ConfigError(f"{self.path}: a run cannot be written here, {there} {why}; choose another --out.")

    @contextmanager
    def held(self, fresh: bool) -> Iterator[None]:
        """Inside it no other process writes here; folders that were made for it and stayed empty are gone afterwards.

        What one that was killed had half written is removed, what it was about to replace is there again. A `fresh` run
        may as well be written elsewhere.

        Raises:
            ConfigError: another process writes here, or it cannot be made.
        """
        with ExitStack() as stack:
            with self._written():
                stack.enter_context(locked(self.path, ", or choose another --out" if fresh else ""))
                for name in recover(self.path):
                    log.warning("%s: %s was being written when an earlier run was killed; tidied up.", self.path, name)
            yield

    def start(self, run: RunFile, fresh: bool, step: int = 0) -> None:
        """Write `run.yaml` and `environment.json`; a fresh run refuses a directory that already holds one.

        The steps of a run that ended before its first checkpoint go to `abandoned/`; so does, of one that is resumed
        after `step`, what later steps left. Where it came from (its first command and start) stays.
        """
        self.refuse(fresh)
        with self._written():
            if fresh and (self.metrics.exists() or numbered(self.checkpoints)):
                names = ("run.yaml", "environment.json", "metrics.jsonl", "report.html", "README.md")
                place = self._set_aside([*names, "samples", "evaluation", "checkpoints", "references", "prior"])
                log.warning("%s: a run ended here before its first checkpoint; what it left: %s.", self.path, place)
            if not fresh:
                self._rewind(step)
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("run.yaml", dump(run))
            self.write("environment.json", json.dumps(self._provenance(fresh, step), indent=1))

    def _rewind(self, step: int) -> None:
        """Set aside what steps after `step` left: the resumed run writes its own."""
        later = [path for path in numbered(self.checkpoints) if step_of(path) > step]
        if later:
            later += [path for path in numbered(self.path / "samples") if step_of(path) > step]
            reports = ("summary.json", "report.html", "README.md", "evaluation/after")
            place = self._set_aside([*(str(path.relative_to(self.path)) for path in later), *reports])
            log.warning("%s: what came after step %d is now in %s.", self.path, step, place)
        if best_step(self.path) > step:
            self._set_aside(["evaluation/best"])
        for file in (self.metrics, self.path / "alarms.jsonl"):
            rewind(file, step)

    def _set_aside(self, names: Sequence[str]) -> Path:
        earlier = self.path / "abandoned"
        taken = [int(path.name) for path in earlier.glob("*") if path.name.isdigit()]
        place = earlier / str(1 + max(taken, default=0))
        place.mkdir(parents=True)
        for name in names:
            if (self.path / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (self.path / name).rename(place / name)
        return place

    def _provenance(self, fresh: bool, step: int) -> dict[str, Any]:
        now = environment()
        first = {} if fresh else self.environment()
        if not first:
            return now
        original = {name: value for name, value in first.items() if name not in ("resumed", "finished")}
        changed = {name: value for name, value in now.items() if value != first.get(name)}
        before = first.get("resumed")
        return original | {"resumed": [*(before if isinstance(before, list) else []), {"step": step, **changed}]}

    def environment(self) -> dict[str, Any]:
        """Return what `environment.json` says; {} where it is missing or damaged."""
        try:
            content = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def finished(self, step: int) -> None:
        """Note that summary, card and report are those of the weights after `step`."""
        self.write("environment.json", json.dumps({**self.environment(), "finished": step}, indent=1))

    def is_finished(self, step: int, measured: bool) -> bool:
        """Are summary (where it is `measured`), card and report there, and of `step`?"""
        from mmalign.evaluation.table import read_summary

        if not all((self.path / name).is_file() for name in ("report.html", "README.md")):
            return False
        if measured:
            try:
                read_summary(self.path / "summary.json")
            except DataError:
                return False
        return bool(self.environment().get("finished", step) == step)  # older runs do not say

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Say which run cannot be written, and why."""
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}); choose another --out.") from error

    def write(self, name: str, text: str) -> Path:
        """Write one text file, whole or not at all."""
        path = self.path / name
        with write_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")
        return path

    def append_metrics(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one line to `metrics.jsonl`; NaN and infinities become null."""
        finite = {k: (round(v, 8) + 0.0 if v == v and abs(v) != float("inf") else None) for k, v in numbers.items()}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    def append(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add one line to a file of JSON lines."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def sync_metrics(self) -> None:
        """Bring the lines so far to the disk."""
        if self.metrics.exists():
            to_disk(self.metrics)


def rewind(file: Path, step: int) -> None:
    """Drop the lines after `step`, which the resumed run writes again, and those that cannot be read."""
    if not file.exists():
        return
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    steps = [_step_of(line) for line in lines]
    if broken := sum(number is None for number in steps[:-1]):  # the last one may have been cut off by a crash
        log.warning("%s: %d lines cannot be read and are dropped.", file, broken)
    with write_beside(file) as beside:
        remaining = [line for line, number in zip(lines, steps, strict=True) if number is not None and number <= step]
        beside.write_text("".join(line + "\n" for line in remaining), encoding="utf-8")


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


def environment() -> dict[str, Any]:
    """Versions, device, commit and command of this process."""
    import torch

    return {
        "command": command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "packages": {name: installed(name) or "not installed" for name in PACKAGES},
    }
