"""A small, complete run directory for tests of what reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.evaluation.records import Evaluation, RowScores, SetValue
from mmalign.evaluation.samples import save_samples
from mmalign.evaluation.table import roles_of, summarize, write_summary

RUN: dict[str, Any] = {
    "adapter": {"name": "sd3", "model": "owner/tiny-model"},
    "policy": {"name": "flow", "num_inference_steps": 8},
    "rewards": {"clip": {"name": "clip", "weight": 1.0, "prefix": "a|b"}},
    "objective": {"name": "grpo", "group_size": 4},
    "data": {"name": "prompts", "path": "p.txt"},
    "evaluation": {"judges": {"truth": {"name": "rule", "role": "verifier"}, "fid": {"name": "fid"}}},
}
NASTY = "a <script>alert('x')</script> & \"quoted\" prompt"


def make_evaluation(gain: float, modality: str = "image", rows: int = 6, made: int = 0) -> Evaluation:
    """Clip rises by `gain`, the verifier holds for the first `gain` share of rows, one clip row has no score.

    Outputs are other ones for another `made`.
    """
    asked = [Prompt(NASTY if i == 0 else f"prompt {i}", meta={"count": i}) for i in range(rows)]
    value = torch.linspace(0.2, 0.3, rows) + gain
    status = torch.zeros(rows, dtype=torch.int8)
    value[-1], status[-1] = torch.nan, int(Status.TIMEOUT)
    scores = {
        "clip": RowScores.of(Scores(value, status, parts={"raw": value * 2})),
        "truth": RowScores.of(Scores.of((torch.arange(rows) < gain * rows).float())),
    }
    sets = {"fid": SetValue(gain, gain + np.random.default_rng(0).normal(size=50).astype(np.float32), rows)}
    outputs: Any = (np.linspace(0, 1, rows * 48).reshape(rows, 3, 4, 4) * 255).astype(np.uint8) + np.uint8(made)
    if modality == "audio":
        outputs = Audio(torch.full((rows, 1, 40), made / 10), 8_000)
    if modality == "text":
        outputs = [f"<b>answer</b> {i + made}" for i in range(rows)]
    return Evaluation(modality, asked, np.arange(rows), scores, sets, outputs, 0, 64, 1)  # type: ignore[arg-type]


def make_run(path: Path, modality: str = "image", steps: int = 40, made: int = 0) -> Path:
    """Write every part of a run directory as a real run does; `made` is of what it learned."""
    before, after = make_evaluation(0.25, modality), make_evaluation(0.75, modality, made=made)
    before.save(path / "evaluation" / "before")
    after.save(path / "evaluation" / "after")
    write_summary(summarize(before, after, roles_of(RUN)), path / "summary.json", 75.0, "report.html")
    (path / "run.yaml").write_text(yaml.safe_dump(RUN, sort_keys=False))
    environment = {
        "command": "mmalign train run.yaml",
        "device": "cpu",
        "packages": {"mmalign": "0.1.0", "torch": "2.11.0", "peft": "not installed"},
    }
    (path / "environment.json").write_text(json.dumps(environment))
    lines = []
    for step in range(1, steps + 1):
        line = {"step": step, "lr": 1e-4, "reward/clip": 0.4 + 0.01 * step, "reward/clip/invalid": 0.0}
        lines.append(line | {"policy/kl": None, "grad/norm": 1 / step, "time/collect": 2.0, "time/update": 1.0})
        if step % 10 == 0:
            lines.append({"step": step, "eval/clip": 0.4 + 0.01 * step, "eval/truth": 0.25 + 0.01 * step})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = torch.from_numpy(after.outputs).float() / 255 if modality == "image" else after.outputs
    rollout = Rollout(after.prompts, output, torch.from_numpy(after.group))
    told = {
        name: Scores(
            torch.from_numpy(held.value),
            torch.from_numpy(held.status),
            parts={part: torch.from_numpy(values) for part, values in held.parts.items()},
        )
        for name, held in after.scores.items()
    }
    for step in (20, 40):
        save_samples(path / "samples" / f"step_{step:06d}", rollout, told)
    adapter = path / "checkpoints" / f"step_{steps:06d}" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "pytorch_lora_weights.safetensors").write_bytes(b"")
    (adapter.parent / "done").write_text(f"{steps}\n")
    return path
