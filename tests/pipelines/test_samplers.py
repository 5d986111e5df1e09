"""Finished runs at other samplers: the truth of every way, by run file, beside what was measured before."""

import json
from pathlib import Path

import pytest

import mmalign
from pipelines import samplers

SMALL = (
    *("trainer.steps=2", "trainer.prompts_per_step=2", "trainer.minibatches=1", "trainer.evaluate_every=0"),
    *("policy.num_inference_steps=2", "policy.eval_steps=2", "objective.group_size=2", "objective.draws=1"),
    *("evaluation.count=6", "adapter.device=cpu", "evaluation.judges={verifier: {name: verifier, role: verifier}}"),
)


def test_runs_are_measured_every_way_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "WAYS", ((4, 1.0), (2, 1.0), (3, 2.0)))
    run = tmp_path / "tried-0"
    mmalign.train("configs/scenes/nft_verifier.yaml", SMALL, out=run)
    out = tmp_path / "samplers.json"
    out.write_text(json.dumps({"runs": {"other": []}}))
    samplers.main([run], out)
    found = json.loads(out.read_text())
    assert found["runs"]["other"] == [] and found["command"].endswith(f"--runs {run}")
    ways = found["runs"]["tried"]
    assert [(way["steps"], way["guidance"]) for way in ways] == [(2, 1.0), (3, 2.0)]
    assert all(0 <= way["after"] <= 1 and way["seeds"][0]["ci"][0] <= way["seeds"][0]["ci"][1] for way in ways)
    assert len(list((run / "evaluated").iterdir())) == 2
