"""How many policy steps one pass holds where the run file does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.core.config import load
from mmalign.run.build import build
from mmalign.run.train import steps_per_pass_of

PICTURES = """
adapter: {name: sd3, model: assets/scenes_sd3}
policy: {name: flow, num_inference_steps: 4}
rewards: {sharp: {name: sharpness}}
objective: {name: grpo, group_size: 4}
data: {name: prompts, path: prompts.txt}
"""


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ([], 1),
        (["trainer.steps_per_pass=3"], 3),
        (["trainer.steps_per_pass=0"], 0),
        (["objective.ratio=sequence"], 0),
        (["adapter={name: causal_lm, model: nowhere/none}", "policy={name: tokens}", "rewards={n: {name: length}}"], 0),
    ],
)
def test_a_step_at_a_time_where_each_is_a_forward(tmp_path: Path, changes: list[str], steps: int) -> None:
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "run.yaml").write_text(PICTURES)
    assert steps_per_pass_of(build(load(tmp_path / "run.yaml", changes))) == steps
