"""Runs whose objective reads other checkpoints: what they name lasts, and a resumed run goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import mmalign
from mmalign.core.errors import MmalignError

START = """adapter: {name: causal_lm, model: assets/scenes_rewriter, train: lora, device: cpu}
policy: {name: tokens, max_new_tokens: 6}
"""
TRAINER = "trainer: {steps: 2, prompts_per_step: 2, lr: 1.0e-3, save_every: 1}\nevaluation: {count: 0}\n"


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two steps, and a file of comparisons."""
    folder = tmp_path_factory.mktemp("experts")
    rows = [{"prompt": f"{n} discs", "chosen": f"{n} circles", "rejected": "a red star"} for n in ("two", "three")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompts.txt").write_text("two discs\nthree discs\n")
    for name, objective in (("better", "{name: dpo}"), ("worse", "{name: dpo, loss_type: ipo}")):
        data = f"rewards: {{}}\nobjective: {objective}\ndata: {{name: preferences, path: {folder}/pairs.jsonl}}\n"
        (folder / f"{name}.yaml").write_text(START + data + TRAINER)
        mmalign.train(folder / f"{name}.yaml", out=folder / name)
    return folder


@pytest.mark.parametrize("kind", ["distill", "credit"])
def test_what_an_objective_reads_lasts(
    kind: str, experts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runs named from their own folder; the run goes on exactly from another folder."""
    monkeypatch.chdir(experts)
    objective, data = {
        "distill": (
            "{name: distill, better: ./better, worse: ./worse, reach: 1}",
            "{name: prompts, path: prompts.txt}",
        ),
        "credit": (
            "{name: dpo, credit: {right: ./better, wrong: ./worse, sides: both}}",
            "{name: preferences, path: pairs.jsonl}",
        ),
    }[kind]
    run = experts / f"{kind}.yaml"
    run.write_text(f"{START}rewards: {{}}\nobjective: {objective}\ndata: {data}\n{TRAINER}")
    out = tmp_path / kind
    mmalign.train(run, out=out)
    whole = {k: v.detach().clone() for k, v in mmalign.load_run(out).parts.adapter.trainable().items()}
    named = yaml.safe_load((out / "run.yaml").read_text())["objective"]
    taken = named["better"] if kind == "distill" else named["credit"]["right"]
    assert Path(taken).is_absolute() and Path(taken).name == "adapter"
    monkeypatch.chdir(tmp_path)
    mmalign.train(out / "run.yaml", resume=f"{out}@1")
    again = mmalign.load_run(out).parts.adapter.trainable()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_an_expert_that_is_not_there_is_told_before_training(experts: Path, tmp_path: Path) -> None:
    """Of a damaged checkpoint nothing is left but the sentence: no step was made."""
    run = experts / "broken.yaml"
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    objective = f"{{name: distill, better: {tmp_path}/model, worse: {experts}/worse}}"
    data = f"{{name: prompts, path: {experts}/prompts.txt}}"
    run.write_text(f"{START}rewards: {{}}\nobjective: {objective}\ndata: {data}\n{TRAINER}")
    with pytest.raises(MmalignError, match="model"):
        mmalign.train(run, out=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("checkpoints/*/done*")) and not (tmp_path / "out/metrics.jsonl").exists()
