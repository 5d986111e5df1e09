"""The run directory: what a run leaves behind, and where each thing lies.

runs/<name>/
  run.yaml  environment.json  metrics.jsonl  summary.json  report.html  README.md
  samples/step_000050/   contact_sheet.png, rows.parquet
  evaluation/before/, evaluation/after/
  checkpoints/step_000100/
  abandoned/1/           what an earlier run left here that ended before its first checkpoint
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmalign.core.checkout import commit
from mmalign.core.config import RunFile, dump
from mmalign.core.errors import ConfigError
from mmalign.core.files import write_beside
from mmalign.training import checkpoint

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

    def evaluation(self, when: str) -> Path:
        """The folder of the evaluation `when` ("before", "after")."""
        return self.path / "evaluation" / when

    def samples(self, step: int) -> Path:
        """The folder of the samples of one step."""
        return self.path / "samples" / f"step_{step:06d}"

    def refuse(self, fresh: bool) -> None:
        """Say before anything is loaded that a run cannot be written here.

        Raises:
            ConfigError: it is no folder, cannot be written, or already holds a run that this one does not continue.
        """
        resumable = bool(checkpoint.complete(self.checkpoints))
        if fresh and (resumable or (self.path / "summary.json").exists()):
            way = ", or continue it with --resume" if resumable else ""
            raise ConfigError(f"{self.path}: already holds a run; choose another --out{way}.")
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            why = "cannot be written" if there.is_dir() else "is not a folder"
            raise ConfigError(f"{self.path}: a run cannot be written here, {there} {why}; choose another --out.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside it no other process trains here; a folder in which nothing was written is gone afterwards.

        Raises:
            ConfigError: another process holds it, or it cannot be made.
        """
        with self._written():
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        try:
            _lock(handle, self.path)
            try:
                yield
            finally:
                with suppress(OSError):  # not empty
                    self.path.rmdir()
        finally:
            os.close(handle)

    def start(self, run: RunFile, fresh: bool) -> None:
        """Write `run.yaml` and `environment.json`; a fresh run refuses a directory that already holds one.

        What a run that was killed had half written of a checkpoint is removed; the steps of one that ended before its
        first checkpoint go to `abandoned/`.
        """
        self.refuse(fresh)
        with self._written():
            if fresh and self.metrics.exists():
                self._set_aside()
            for half in self.checkpoints.glob(".step_*"):
                shutil.rmtree(half)
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("run.yaml", dump(run))
            self.write("environment.json", json.dumps(environment(), indent=1))

    def _set_aside(self) -> None:
        earlier = self.path / "abandoned"
        place = earlier / str(1 + sum(1 for _ in earlier.glob("*")))
        place.mkdir(parents=True)
        files = ("run.yaml", "environment.json", "metrics.jsonl", "report.html", "README.md")
        for name in (*files, "samples", "evaluation"):
            if (self.path / name).exists():
                (self.path / name).rename(place / name)
        log.warning("%s: a run ended here before its first checkpoint; what it left is now in %s.", self.path, place)

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
        finite = {k: (round(v, 8) if v == v and abs(v) != float("inf") else None) for k, v in numbers.items()}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`: they will be written again by the resumed run."""
        if not self.metrics.exists():
            return
        lines = [line for line in self.metrics.read_text().splitlines() if _step_of(line) <= step]
        with write_beside(self.metrics) as beside:
            beside.write_text("".join(line + "\n" for line in lines))


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path}: another process is training here; wait for it, or choose another --out.") from None
    except OSError:  # a file system that knows no locks
        return


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize  # a line cut off by a crash


def environment() -> dict[str, Any]:
    """Versions, device, commit and command of this process."""
    import torch

    return {
        "command": shlex.join(["mmalign", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
