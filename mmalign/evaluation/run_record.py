"""What a run directory holds; whatever is missing or broken is named, not fatal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmalign.core.errors import DataError, MmalignError
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.table import Role, SummaryRow, read_seconds, read_summary, roles_of

__all__ = ["RunRecord", "read_numbers", "read_run"]

T = TypeVar("T")
Line = dict[str, float]


@dataclass
class RunRecord:
    """The parts of one run directory; an empty part is explained in `missing`."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    run_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: list[Line] = field(default_factory=list)
    summary: list[SummaryRow] = field(default_factory=list)
    seconds: float | None = None
    before: Evaluation | None = None
    after: Evaluation | None = None
    samples: list[Path] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    @property
    def roles(self) -> dict[str, Role]:
        """Roles by reward: the summary's where it has them, else the run file's."""
        return roles_of(self.run) | {row.name: row.role for row in self.summary}

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return the (step, value) points of one metric."""
        return [(line["step"], line[name]) for line in self.metrics if name in line]

    def metric_names(self) -> list[str]:
        """Every metric, in the order of its first appearance."""
        return list(dict.fromkeys(name for line in self.metrics for name in line if name != "step"))


def read_run(directory: Path | str) -> RunRecord:
    """Read every part of a run directory.

    Raises:
        DataError: there is no such directory. A part that is missing or broken only adds a sentence to `missing`.
    """
    record = _numbers(directory)
    record.before = _attempt(record, "evaluation/before", _evaluation, None)
    record.after = _attempt(record, "evaluation/after", _evaluation, None)
    if not record.samples and (reason := _no_samples(record)):
        record.missing.append(reason)
    return record


def read_numbers(directory: Path | str) -> RunRecord:
    """`read_run` without outputs: of evaluations only their numbers, and only of the one before training.

    Raises:
        DataError: there is no such directory.
    """
    record = _numbers(directory)
    if (record.path / "evaluation" / "before").exists():
        record.before = _attempt(record, "evaluation/before", lambda path: Evaluation.load(path, outputs=False), None)
    return record


def _numbers(directory: Path | str) -> RunRecord:
    path = Path(directory)
    if not path.is_dir():
        raise DataError(f"{path}: no such run directory.")
    record = RunRecord(path)
    record.run_text = _attempt(record, "run.yaml", lambda file: file.read_text(encoding="utf-8"), "")
    record.run = _attempt(record, "run.yaml", _yaml, {}, again=True)
    record.environment = _attempt(record, "environment.json", _object, {})
    record.metrics = _attempt(record, "metrics.jsonl", lambda file: _lines(file, record.missing), [])
    record.summary = _attempt(record, "summary.json", read_summary, [])
    record.seconds = read_seconds(path / "summary.json")
    if (path / "alarms.jsonl").exists():
        record.alarms = _attempt(record, "alarms.jsonl", _alarms, [])
    record.samples = sorted(p for p in (path / "samples").glob("step_*") if p.is_dir())
    return record


def _alarms(file: Path) -> list[dict[str, Any]]:
    """Alarms, oldest first."""
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return [{"step": int(entry["step"]), "text": str(entry["text"])} for entry in entries]


def _no_samples(record: RunRecord) -> str:
    """Why no step left samples; "" for a reward model, which makes nothing to show."""
    if (record.run.get("policy") or {}).get("name") == "scorer":
        return ""
    every = (record.run.get("trainer") or {}).get("preview_every", 0)
    steps = int(record.metrics[-1]["step"]) if record.metrics else 0
    if not every:
        return "samples/ holds no step (trainer.preview_every is 0)"
    if every > steps:
        return f"samples/ holds no step (trainer.preview_every is {every}, and the run took {steps})"
    why = "no prompts were held out, or it was removed"
    return f"samples/ holds no step, though trainer.preview_every is {every}: {why}"


def _attempt(record: RunRecord, name: str, read: Callable[[Path], T], otherwise: T, again: bool = False) -> T:
    """`read` of one part, or `otherwise` with the reason noted (once: not `again`)."""
    path = record.path / name
    reason = f"{name} is not there"
    if path.exists():
        try:
            return read(path)
        except (MmalignError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{name} could not be read: {error}"
    if not again or path.exists():
        record.missing.append(reason)
    return otherwise


def _evaluation(folder: Path) -> Evaluation:
    """An evaluation whose sounds are read when they are shown."""
    return Evaluation.load(folder, sounds=False)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(loaded, dict):
        raise ValueError("not a mapping")
    if odd := [name for name in ("adapter", "policy", "objective", "data") if not isinstance(loaded.get(name), dict)]:
        raise ValueError(f"no usable {', '.join(odd)}")
    evaluation = loaded.get("evaluation") or {}
    judges = (evaluation.get("judges") or {}) if isinstance(evaluation, dict) else evaluation
    for name, specs in {"rewards": loaded.get("rewards") or {}, "evaluation.judges": judges}.items():
        if not isinstance(specs, dict) or not all(isinstance(spec, dict) for spec in specs.values()):
            raise ValueError(f"{name} is no section of named parts")
    return loaded


def _object(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise ValueError("not a JSON object")
    return loaded


def _lines(path: Path, missing: list[str]) -> list[Line]:
    """Metric lines in the order of steps; lines of one step are merged, null and NaN entries dropped."""
    steps: dict[float, Line] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = {k: float(v) for k, v in json.loads(text).items() if isinstance(v, int | float)}
            steps.setdefault(line["step"], {}).update({k: v for k, v in line.items() if math.isfinite(v)})
        except (ValueError, KeyError, AttributeError):
            missing.append(f"metrics.jsonl, line {number}, is not a step and is left out")
    return [steps[step] for step in sorted(steps)]
