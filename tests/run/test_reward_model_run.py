"""A reward model from preferences to reward: fitted, evaluated, resumed, and followed by GRPO, through run files."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mmalign
from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.run.build import build
from tests.run.launching import TORCHRUN

RUN = """
adapter: {{name: reward_model, model: {model}, train: full}}
policy: {{name: scorer}}
rewards: {{}}
objective: {{name: bradley_terry, centre: 0.01}}
data: {{name: preferences, path: pairs.jsonl, held_out: 0.3}}
trainer: {{steps: 30, prompts_per_step: 8, lr: 3.0e-3}}
evaluation: {{count: 0}}
"""
GRPO = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 8, alpha: 16}}}}
policy: {{name: tokens, max_new_tokens: 8, eval_temperature: 1.0}}
rewards:
  liked: {{name: reward_model, model: {reward}, device: cpu}}
objective: {{name: grpo, group_size: 8, beta: 0.0}}
data: {{name: prompts, path: prompts.txt}}
trainer: {{steps: 12, prompts_per_step: 4, lr: 2.0e-2}}
"""
WORDS = ["a", "b", "c", "d", "e", "f", "red", "cube", "two", "dogs"]


def answer(kind: str, rng: random.Random) -> str:
    """Some words, among them the one that people like, or the one that they do not."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
    words.insert(rng.randint(0, len(words)), kind)
    return " ".join(words)


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the data and a run file."""
    rng = random.Random(0)
    prompts = [f"{one} {two}" for one in WORDS for two in WORDS[:8]]
    pairs = [{"prompt": p, "chosen": answer("good", rng), "rejected": answer("bad", rng)} for p in prompts * 3]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "prompts.txt").write_text("\n".join(prompts[:12]) + "\n")
    rows = [
        {"prompt": f"say {p}", "chosen": [answer("good", rng)], "rejected": [answer("bad", rng) for _ in range(3)]}
        for p in prompts[:20]
    ]
    for i in range(4):
        two = [answer("good", rng), answer("good", rng)]
        rows.append({"prompt": f"one {i}", "id": f"ref:{i}", "chosen": two[:1], "rejected": [answer("bad", rng)]})
        rows.append({"prompt": f"any {i}", "id": f"tied:{i}", "chosen": two, "rejected": [answer("bad", rng)]})
    for i, row in enumerate(rows):
        row["subset"] = "Ties" if "id" in row else ("Plain", "Other")[i % 2]
    (tmp_path / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def file(text: str = RUN, **more: Any) -> Path:
        path = tmp_path / f"run{len(list(tmp_path.glob('run*.yaml')))}.yaml"
        path.write_text(text.format(model=lm_folder("llama"), **more))
        return path

    return file


def numbers(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_preferences_become_a_model_and_the_model_a_reward(write: Callable[..., Path], tmp_path: Path) -> None:
    finished = mmalign.train(write(), out=tmp_path / "liked")
    run = finished.directory.path
    accuracy = next(row for row in finished.rows if row.name == "accuracy")
    assert accuracy.before < 0.8 and accuracy.after > 0.95 and accuracy.ci[0] > 0.1 and accuracy.n > 15
    assert numbers(run, "margin/accuracy")[-1] == 1.0 and numbers(run, "score/loss")[-1] < 0.4
    assert abs(numbers(run, "score/chosen")[-1] + numbers(run, "score/rejected")[-1]) < 2  # centred
    card = (run / "README.md").read_text()
    assert "a reward model fitted to preferences" in card and "pipeline_tag: text-classification" in card
    assert "LlamaForSequenceClassification.from_pretrained" in card and "accuracy" in (run / "report.html").read_text()

    again = mmalign.evaluate(run)
    assert next(r for r in again.rows if r.name == "accuracy").after == pytest.approx(accuracy.after)
    bench = mmalign.evaluate(run, tmp_path / "benchmark.jsonl")
    after = {row.name: row.after for row in bench.rows}
    assert after["best_of_4"] > 0.9 and after["ties"] > 0.6 and after["rewardbench2"] > 0.8
    assert {"best_of_4/Plain", "best_of_4/Other", "accuracy/Ties"} <= after.keys() | {"accuracy/Ties"}
    assert bench.directory is not None and bench.directory.path == run / "evaluated" / "1-benchmark"
    kept = json.loads((bench.directory.path / "summary.json").read_text())["rows"]
    assert {row["name"] for row in kept} == set(after)

    with pytest.raises(CapabilityError, match=r"a reward model makes nothing; score with it by mmalign.load_reward"):
        mmalign.load_run(run)
    tuned = mmalign.train(write(GRPO, reward=run), out=tmp_path / "followed").directory.path
    curve = numbers(tuned, "reward/liked")
    assert sum(curve[-3:]) / 3 > sum(curve[:3]) / 3 + 1.0
    prompts = load_prompts(tmp_path / "prompts.txt")
    policy: Any = mmalign.train(write(GRPO, reward=run), ["trainer.steps=1"], out=tmp_path / "one").parts.policy
    policy.adapter.restore(tuned / "checkpoints" / "step_000012" / "adapter")
    said = " ".join(policy.generate(prompts * 4, torch.Generator().manual_seed(0)).output).split()
    assert said.count("good") > 4 * said.count("bad") + 10  # what people liked, found by way of the model alone


def load_prompts(file: Path) -> list[Any]:
    return [mmalign.Prompt(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("how", ["lora", "head"])
def test_a_resumed_run_is_the_uninterrupted_one(write: Callable[..., Path], tmp_path: Path, how: str) -> None:
    short = [f"adapter.train={how}", "adapter.head={kind: mlp2}", "data.held_out=0", "trainer.micro_batch_size=3"]
    short += ["trainer.steps=3", "trainer.lr=1e-2"]
    path = write()
    mmalign.train(path, short, out=tmp_path / "whole")
    mmalign.train(path, [*short, "trainer.steps=1"], out=tmp_path / "half")
    mmalign.train(load(tmp_path / "half" / "run.yaml", ["trainer.steps=3"]), resume=tmp_path / "half")
    state = Path("checkpoints", "step_000003", "state", "weights.safetensors")
    one, two = load_file(tmp_path / "whole" / state), load_file(tmp_path / "half" / state)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_dpo_holds_out_prompts_of_preferences(write: Callable[..., Path], tmp_path: Path) -> None:
    text = GRPO.replace("objective: {{name: grpo, group_size: 8, beta: 0.0}}", "objective: {{name: dpo}}")
    offline = "{{name: preferences, path: pairs.jsonl, held_out: 0.1}}"
    text = text.replace("{{name: prompts, path: prompts.txt}}", offline)
    text = text.replace("  liked: {{name: reward_model, model: {reward}, device: cpu}}", "  long: {{name: length}}")
    finished = mmalign.train(write(text), ["trainer.steps=1"], out=tmp_path / "run")
    assert [row.name for row in finished.rows] == ["long"] and finished.rows[0].n > 3


def test_what_does_not_fit_is_said_before_anything_loads(write: Callable[..., Path]) -> None:
    def faults(*changes: str) -> str:
        with pytest.raises((ConfigError, CapabilityError)) as caught:
            build(load(write(), list(changes)))
        return str(caught.value)

    assert "objective 'grpo' drives a StepPolicy; policy 'scorer' lacks" in faults("objective={name: grpo}", LENGTH)
    assert "objective 'bradley_terry' drives a ScorePolicy; policy 'tokens' lacks score. Policies that fit: scorer" in (
        faults("policy={name: tokens}", "adapter={name: causal_lm, model: x}")
    )
    shifted = faults("objective={name: meta_rm}", "adapter.gradient_checkpointing=true")
    assert "adapter.gradient_checkpointing: objective 'meta_rm' computes at shifted weights" in shifted
    assert "this one (RewardModel) makes scores; use policy 'scorer'" in faults("policy={name: tokens}")
    assert "this one (RewardModel) makes scores; use policy 'scorer'" in faults("policy={name: flow}")
    assert "this one (CausalLM) makes tokens; use policy 'tokens'" in faults("adapter={name: causal_lm, model: x}")
    found = faults("trainer.preview_every=1", LENGTH, "evaluation.judges.b={name: length}")
    assert "rewards.a: judges what a policy makes, and policy 'scorer' makes nothing; remove it." in found
    assert "evaluation.judges.b: judges what a policy makes" in found
    assert "trainer.preview_every: policy 'scorer' makes nothing to show; use evaluate_every" in found


LENGTH = "rewards={a: {name: length}}"


@pytest.mark.timeout(900)  # starts Python three times
def test_two_processes_measure_what_one_does(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    changes = ["trainer.steps=1", "trainer.prompts_per_step=8", "evaluation.rows=5"]
    for launcher, name in (([sys.executable], "one"), (TORCHRUN, "two")):
        command = [*launcher, "-m", "mmalign", "train", str(path), *changes, "--out", str(tmp_path / name)]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "training in 2 processes" in ended.stdout
    one, two = ((tmp_path / name / "evaluation" / "before" / "rows.jsonl").read_text() for name in ("one", "two"))
    assert one == two and one.count("\n") > 5
    after = [numbers(tmp_path / name, "eval/accuracy") for name in ("one", "two")]
    assert len(after[0]) == 1 and after[0] == pytest.approx(after[1])
