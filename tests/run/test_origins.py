"""A run starts from another run: preferences after rewards, over what was fully trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.core.config import load
from mmalign.core.errors import ConfigError
from mmalign.evaluation.card import card, card_facts
from mmalign.evaluation.run_record import read_run
from mmalign.media.image import write_image
from mmalign.run.build import build, examine
from mmalign.run.load import load_run
from mmalign.run.notes import notes
from mmalign.run.train import train
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.evaluation.executed import executed

DPO = """
adapter: {{name: sd3, model: {model}, train: {train}, lora: {{rank: 2, alpha: 2}}, max_sequence_length: 8}}
policy: {{name: flow, num_inference_steps: 3, eval_steps: 2}}
objective: {{name: dpo, beta: 1.0}}
data: {{name: preferences, path: pairs.jsonl}}
trainer: {{steps: 2, prompts_per_step: 2, lr: 1.0e-3}}
"""
FEW = ["trainer.steps=1", "trainer.preview_every=0", "trainer.evaluate_every=0", "evaluation.count=1"]


@pytest.fixture
def liked(tmp_path: Path) -> Callable[[Path, str], Path]:
    """Writes a run file of votes on pictures, which starts from a model or a run."""

    def write(model: Path, mode: str) -> Path:
        rows = []
        for n in range(4):
            for side in ("chosen", "rejected"):
                write_image(torch.rand(3, 16, 16), tmp_path / f"{side}{n}.png")
            rows.append({"prompt": f"{n} things", "chosen": f"chosen{n}.png", "rejected": f"rejected{n}.png"})
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = tmp_path / "dpo.yaml"
        path.write_text(DPO.format(model=model, train=mode))
        return path

    return write


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_dpo_starts_from_a_fully_trained_run_and_is_measured_against_it(
    run_file: Callable[..., Path], liked: Callable[..., Path], tmp_path: Path, mode: str
) -> None:
    first = train(load(run_file("full"), FEW), out=tmp_path / "first").directory.path
    path = liked(first, mode)
    examined, _ = examine(load(path))
    (said,) = notes(examined)
    assert said.startswith(f"adapter.model: {first} is what a run left; its weights are taken from {first}/checkpoints")
    out = train(load(path), out=tmp_path / "second").directory.path
    taken = first / "checkpoints" / "step_000001" / "adapter"
    assert load(out / "run.yaml").adapter["model"] == str(taken)  # also where the first run learns on
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps[0]["margin/chosen"] == steps[0]["margin/rejected"] == 0 != steps[1]["margin/chosen"]

    started = load_run(first).parts.adapter.module.state_dict()
    again = load_run(out)
    with again.start():
        found = dict(again.parts.adapter.module.state_dict())
        names = {name.replace(".base_layer.", "."): value for name, value in found.items()}
        assert all(torch.equal(value, names[name]) for name, value in started.items())

    facts = card_facts(read_run(out))
    assert facts.base_model == "first@1" and "`first@1` aligned" in card(out)
    assert str(tmp_path) not in card(out)
    (away := tmp_path / "elsewhere").mkdir()
    other = "assert pipe.transformer.config.num_layers"
    executed(facts.here, away, other)
    assert ("SD3Transformer2DModel.from_pretrained(start)" in facts.here) == (mode == "lora")


def test_what_cannot_be_started_from_is_told_before_anything_loads(
    run_file: Callable[..., Path], liked: Callable[..., Path], tmp_path: Path
) -> None:
    lora = train(load(run_file("lora"), FEW), out=tmp_path / "first").directory.path
    path = liked(lora, "lora")
    with pytest.raises(ConfigError, match=r"adapter.model: .*/step_000001/adapter: holds a LoRA, not a pipeline; cont"):
        examine(load(path))
    with pytest.raises(ConfigError, match=r"adapter.model: /nowhere/at/all: no such folder"):
        examine(load(path, ["adapter.model=/nowhere/at/all"]))
    shutil.rmtree(lora / "checkpoints" / "step_000001" / "adapter")
    with pytest.raises(ConfigError, match=r"adapter.model: .*no complete checkpoint; not whole: step_000001 .*another"):
        examine(load(path))
    assert build(load(path)).resolved().adapter["model"] == str(lora)


TEXT = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 2, target_modules: all-linear}}}}
policy: {{name: tokens, max_new_tokens: 6}}
objective: {{name: sft}}
data: {{name: prompts, path: rows.jsonl}}
trainer: {{steps: 2, prompts_per_step: 2, lr: 1.0e-2}}
"""


def test_a_lora_of_a_language_run_goes_on_from_its_directory(tmp_path: Path) -> None:
    model = write_tiny_lm(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "say a", "target": "a"}\n{"prompt": "say b", "target": "b"}\n')
    path = tmp_path / "run.yaml"
    path.write_text(TEXT.format(model=model))
    first = train(load(path), out=tmp_path / "first").directory.path
    wanted = load_run(first).parts.adapter.trainable()
    out = train(load(path, [f"adapter.start_lora={first}"]), out=tmp_path / "second").directory.path
    taken = str(first / "checkpoints" / "step_000002" / "adapter")
    assert load(out / "run.yaml").adapter["start_lora"] == taken
    again = load_run(out)
    with again.start():
        found = again.parts.adapter.trainable()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    told = r"adapter.model: .*/step_000002/adapter is a LoRA: write adapter.start_lora: .*/adapter, and its base as ada"
    with pytest.raises(ConfigError, match=told):
        examine(load(path, [f"adapter.model={first}"]))
    told = r"adapter.start_lora: .*/model is a whole model, no LoRA: write adapter.model: .*/model, without start_lora"
    with pytest.raises(ConfigError, match=told):
        examine(load(path, [f"adapter.start_lora={model}"]))
    with pytest.raises(ConfigError, match=r"adapter.start_lora: gone/here/now: no such folder"):
        examine(load(path, ["adapter.start_lora=gone/here/now"]))
