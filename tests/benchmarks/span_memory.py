"""Peak memory of the update against the number of trained denoising steps, whole and with `spans: 1`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

STEPS = (2, 4, 8)


def measure() -> dict[str, Any]:
    """Mebibytes that the update adds to the process, each case in a process of its own."""
    found: dict[str, Any] = {}
    for spans in (0, 1):
        peaks = {steps: _peak(steps, spans) for steps in STEPS}
        found["whole" if not spans else "spans_1"] = {
            "mib": {str(steps): round(peak) for steps, peak in peaks.items()},
            "ratio_of_most_to_fewest_steps": round(peaks[STEPS[-1]] / peaks[STEPS[0]], 2),
        }
    return found


def _peak(steps: int, spans: int) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.span_memory", str(steps), str(spans)]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[-2]))


def _one(steps: int, spans: int) -> None:
    from dataclasses import replace

    import torch

    from mmalign.core.config import Trainer
    from mmalign.policies.flow import Flow
    from mmalign.training.loop import accumulate
    from tests.benchmarks import problem

    adapter = problem.generator()
    policy = Flow(adapter=adapter, num_inference_steps=steps + 1)
    _, objective, _ = problem.grpo(adapter)
    session = problem.session(adapter, Trainer(steps_per_pass=spans))
    with torch.no_grad():
        experience = objective.collect(policy, next(session.batches), session.streams["rollout"])
    weighted = replace(experience, weight=objective.weigh(experience.mask, session.mean))
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far, which sampling set
    before = _kib("VmRSS")
    accumulate(policy, objective, weighted, session)
    print((_kib("VmHWM") - before) / 1024)


def _kib(name: str) -> int:
    """A number of `/proc/self/status`."""
    with Path("/proc/self/status").open(encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


if __name__ == "__main__":
    _one(int(sys.argv[1]), int(sys.argv[2]))
