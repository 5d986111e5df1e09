"""A head fitted by triplets and a score fitted on it, through run files; what does not fit is said before loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.config import draft
from mmalign.core.errors import ConfigError
from mmalign.run.build import examine

PAIR = [("one red circle", "a red circle", "a blue star"), ("two stars", "a star and a star", "three crosses")]
EMBEDDER: dict[str, Any] = {
    "name": "embedder",
    "encoder": "assets/scenes_clip",
    "judges": "text",
    "width": 8,
    "device": "cpu",
}


def run_file(folder: Path, **changes: Any) -> Path:
    rows = [dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)) for texts in PAIR * 4]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {
        "adapter": EMBEDDER,
        "policy": {"name": "scorer"},
        "rewards": {},
        "objective": {"name": "contrast", "loss_type": "triplet", "margin": 1.0},
        "data": {"name": "preferences", "path": str(folder / "rows.jsonl")},
        "trainer": {"steps": 3, "prompts_per_step": 4, "micro_batch_size": 3, "lr": 1e-2},
    }
    path = folder / f"run{len(list(folder.glob('run*.yaml')))}.yaml"
    path.write_text(json.dumps({**run, **changes}))
    return path


def test_triplets_then_a_score_on_them(tmp_path: Path) -> None:
    first = mmalign.train(run_file(tmp_path), out=tmp_path / "alike")
    lines = [json.loads(line) for line in (tmp_path / "alike" / "metrics.jsonl").read_text().splitlines()]
    assert any("contrast/found" in line for line in lines)
    assert first is not None
    scored = {
        "adapter": {**EMBEDDER, "start": str(tmp_path / "alike"), "train": "score"},
        "objective": {"name": "bradley_terry"},
    }
    mmalign.train(run_file(tmp_path, **scored), out=tmp_path / "scored")
    adapters = [
        mmalign.load_adapter(**{**EMBEDDER, "start": str(tmp_path / name), "train": "frozen"})
        for name in ("alike", "scored")
    ]
    inputs = adapters[0].read([mmalign.Prompt("x")], ["a red circle"])
    (one, before), (two, after) = (adapter.scored_features(inputs) for adapter in adapters)
    torch.testing.assert_close(before, after)
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"adapter": {"name": "sd3", "model": "assets/scenes_sd3"}, "policy": {"name": "flow"}},
            "drives a FeaturePolicy; policy 'flow' lacks features. Policies that fit: scorer, tokens",
        ),
        ({"objective": {"name": "contrast", "gated": True, "of": "scores"}}, "gated: a gate is of features"),
        (
            {
                "adapter": {"name": "causal_lm", "model": "assets/scenes_rewriter"},
                "policy": {"name": "tokens"},
                "objective": {"name": "contrast", "of": "scores"},
            },
            "objective.of: scores are of a reward model; set of: features, or policy: {name: scorer}",
        ),
        (
            {
                "adapter": {"name": "reward_model", "model": "assets/scenes_rewriter", "chat": False},
                "objective": {"name": "contrast", "gated": True},
            },
            "objective.gated: this adapter has no gates; use adapter embedder",
        ),
        (
            {
                "adapter": {"name": "causal_lm", "model": "assets/scenes_rewriter"},
                "policy": {"name": "tokens"},
                "rewards": {"alike": {"name": "embedding_contrast"}},
                "objective": {"name": "grpo"},
            },
            "rewards.alike: compares outputs by the policy's own features; set policy.keep_features: true",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_loaded(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        examine(draft(run_file(tmp_path, **changes)))
    assert sentence in str(caught.value)
