"""Run files that train a tiny language model: the reward rises, resume is exact, plain peft loads the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError, MmalignWarning
from mmalign.run.build import build, examine
from mmalign.run.evaluate import evaluate
from mmalign.run.train import train
from tests.run.text_runs import GRPO, RULES

WORDS = ["a", "b", "c", "d", "e", "f", "red", "cube", "two", "dogs"]


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run file, prompts and preferences."""

    def file(text: str = GRPO, kind: str = "llama") -> Path:
        (tmp_path / "prompts.txt").write_text("".join(f"{one} {two}\n" for one in WORDS[:4] for two in WORDS[4:]))
        pairs = [{"prompt": f"say {w}", "chosen": f"{w} good", "rejected": f"bad {w} asleep {w}"} for w in WORDS]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
        path = tmp_path / "run.yaml"
        path.write_text(text.format(model=lm_folder(kind)))
        return path

    return file


def numbers(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "state" / "weights.safetensors")


def test_grpo_raises_the_share_of_a_word(write: Callable[..., Path], tmp_path: Path) -> None:
    finished = train(load(write()), out=tmp_path / "run", allow=RULES)
    run = finished.directory.path
    curve = numbers(run, "reward/good")
    assert sum(curve[:3]) / 3 < 0.2 and sum(curve[-3:]) / 3 > 0.6
    row = next(row for row in finished.rows if row.name == "good")
    assert row.delta > 0.4 and row.ci[0] > 0.3  # on prompts never trained on
    assert abs(numbers(run, "ratio/mean")[0] - 1) <= 1e-5 and abs(numbers(run, "kl/reference")[0]) <= 1e-6
    assert numbers(run, "policy/entropy")[-1] < numbers(run, "policy/entropy")[0]
    assert 0 < numbers(run, "rows/truncated")[0] < 1
    assert "PeftModel.from_pretrained" in (run / "README.md").read_text()

    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(run / "checkpoints" / "step_000014" / "adapter")
    adapter: Any = finished.parts.adapter
    ids = adapter.encode(finished.parts.source.training_items()[:1])[0]["input_ids"]
    made = model.generate(ids[None], do_sample=True, max_new_tokens=10, num_return_sequences=32)[:, len(ids) :]
    texts = adapter.texts.tokenizer.batch_decode(made, skip_special_tokens=True)
    words = " ".join(texts).split()
    assert words.count("good") / len(words) > 0.5
    again = evaluate(run, allow=RULES)
    assert [r.after for r in again.rows] == pytest.approx([r.after for r in finished.rows], abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_a_resumed_run_is_the_uninterrupted_one(write: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    short = [
        "trainer.steps=2",
        "data.held_out=0",
        "data.limit=6",
        "trainer.minibatches=2",
        "trainer.micro_batch_size=9",
    ]
    short += ["trainer.prompts_per_step=2", "objective.group_size=6", "policy.max_new_tokens=6"]
    short += ["rewards={brief: {name: 'tests.run.text_rules:brief'}}"]  # which differs between any outputs
    path = write(kind=kind)
    train(load(path, short), out=tmp_path / "whole", allow=RULES)
    train(load(path, [*short, "trainer.steps=1"]), out=tmp_path / "half", allow=RULES)
    train(load(tmp_path / "half" / "run.yaml", ["trainer.steps=2"]), resume=tmp_path / "half", allow=RULES)
    one, two = weights(tmp_path / "whole", 2), weights(tmp_path / "half", 2)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_may_go_on_from_the_lora_of_another(write: Callable[..., Path], tmp_path: Path) -> None:
    short = ["trainer.steps=3", "data.held_out=0"]
    train(load(write(), short), out=tmp_path / "first", allow=RULES)
    lora = tmp_path / "first" / "checkpoints" / "step_000003" / "adapter"
    changes = [*short, f"adapter.start_lora={lora}", "objective.beta=0.1"]
    second = train(load(write(), changes), out=tmp_path / "second", allow=RULES)
    assert numbers(second.directory.path, "kl/reference")[0] <= 1e-6
    assert numbers(second.directory.path, "kl/reference")[-1] > 1e-4
    assert load(second.directory.path / "run.yaml").adapter["start_lora"] == str(lora)


OFFLINE = ["rewards={}", "objective={name: dpo, beta: 0.5}", "data={name: preferences, path: pairs.jsonl}"]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_dpo_prefers_what_was_chosen(write: Callable[..., Path], tmp_path: Path, mode: str) -> None:
    changes = [*OFFLINE, f"adapter.train={mode}", "trainer.steps=12", "trainer.lr=5e-3", "trainer.micro_batch_size=3"]
    run = train(load(write(), changes), out=tmp_path / "run", allow=RULES).directory.path
    assert numbers(run, "margin/mean")[0] == pytest.approx(0, abs=1e-4)
    assert numbers(run, "margin/accuracy")[-1] == 1.0 and numbers(run, "margin/mean")[-1] > 2
    assert numbers(run, "fit/chosen")[-1] > numbers(run, "fit/chosen")[0]


def test_online_dpo_follows_the_reward(write: Callable[..., Path], tmp_path: Path) -> None:
    changes = ["objective={name: dpo, online: best_worst, group_size: 8, beta: 0.1}"]
    finished = train(load(write(), changes), out=tmp_path / "run", allow=RULES)
    row = next(row for row in finished.rows if row.name == "good")
    assert row.delta > 0.2 and row.ci[0] > 0.1


def test_a_captioner_learns_what_pictures_show(tmp_path: Path) -> None:
    """Two colours, two words: a log-prob above log ½ needs the picture."""
    from mmalign.media.image import write_image
    from tests.adapters.language.tiny_vlm import write_tiny_vlm

    folder, rows = write_tiny_vlm(tmp_path / "llava", "llava", chat=True), []
    for i in range(8):
        colour = torch.tensor([0.9, 0.1, 0.1] if i % 2 else [0.1, 0.2, 0.9])[:, None, None]
        write_image(colour.expand(3, 16, 16) * (0.9 + 0.01 * i), tmp_path / f"{i}.png")
        rows.append({"prompt": "say", "picture": f"{i}.png", "caption": "red" if i % 2 else "good"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(f"""
adapter: {{name: image_text, model: {folder}, lora: {{rank: 8, alpha: 16}}}}
policy: {{name: tokens, max_new_tokens: 4}}
rewards: {{}}
objective: {{name: sft, target: caption}}
data: {{name: prompts, path: rows.jsonl, image: picture}}
trainer: {{steps: 30, prompts_per_step: 4, lr: 1.0e-2}}
""")
    finished = train(load(tmp_path / "run.yaml"), out=tmp_path / "run")
    curve = numbers(finished.directory.path, "fit/target")
    assert curve[0] < -2 and sum(curve[-3:]) / 3 > -0.3
    prompts = finished.parts.source.training_items()
    policy: Any = finished.parts.policy
    said = policy.generate(prompts, torch.Generator()).output
    assert said == [row["caption"] for row in rows]


@pytest.mark.parametrize(
    "objective",
    [
        "{name: grpo, ratio: sequence, clip: 0.02, keep_groups: 3, group_size: 6, weighting: per_step}",
        "{name: grpo, baseline: greedy, std: none, surrogate: score, group_size: 4}",
        "{name: copg, beta: 0.05, group_size: 6}",
        "{name: sft, online: best_of_n, group_size: 6}",
    ],
)
def test_other_objectives_raise_it_too(write: Callable[..., Path], tmp_path: Path, objective: str) -> None:
    changes = [f"objective={objective}", "data.held_out=0", "trainer.steps=14", "evaluation.judges={}"]
    changes += ["rewards.good={name: 'tests.run.text_rules:brief'}", "trainer.prompts_per_step=6"]
    finished = train(load(write(), changes), out=tmp_path / "run", allow=RULES)
    curve = numbers(finished.directory.path, "reward/good")
    assert sum(curve[-3:]) / 3 > sum(curve[:3]) / 3 + 0.1


def test_what_does_not_fit_texts_is_said_before_anything_loads(write: Callable[..., Path], tmp_path: Path) -> None:
    def faults(*changes: Any) -> str:
        with pytest.raises((ConfigError, CapabilityError)) as caught:
            build(load(write(), list(changes)), allow=RULES)
        return str(caught.value)

    assert "rewards.good: judges image, but the policy makes text" in faults("rewards.good={name: sharpness}")
    assert "policy 'flow' needs an adapter that makes latents, and this one (CausalLM)" in faults("policy={name: flow}")
    assert "this one (SD3) makes latents; use policy 'flow'" in faults("adapter={name: sd3, model: x}")
    assert "Did you mean 'temperature'" in faults("policy.temprature=1")
    assert "Policies that fit: ddpm, flow, tokens" in faults("policy={name: few_step}", "adapter={name: sd3, model: x}")


def mixed_tasks(folder: Path, both: int = 0) -> list[str]:
    """Changes of a run file to two tasks in one file of rows, `both` of which are of both."""
    right, told = ({"answer": "good"}, {"references": "good dogs"})
    rows = [{"prompt": f"say {word}"} | (told if i % 2 else right) for i, word in enumerate(WORDS)]
    rows += [{"prompt": f"tell {word}"} | right | told for word in WORDS[:both]]
    (folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = "{right: {name: exact_match}, like: {name: chrf, column: references}}"
    return [f"rewards={rewards}", "data={name: prompts, path: mixed.jsonl, held_out: 0}", "trainer.steps=3"]


def test_tasks_whose_columns_no_row_has_at_once_are_refused_or_renormalised(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    """By default such a file would mask every row, and the run would end having learned nothing."""
    changes, path = mixed_tasks(tmp_path), write()
    with pytest.raises(ConfigError, match=r"none of them has all columns .*right needs answer; rewards\.like"):
        train(load(path, changes), out=tmp_path / "run", allow=RULES)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="combine: Product gives such a row no value"):
        train(load(path, [*changes, "combine={name: product}"]), out=tmp_path / "run", allow=RULES)
    lenient = [*changes, "combine={name: weighted_sum, missing: renormalize}"]
    run = train(load(path, lenient), out=tmp_path / "run", allow=RULES).directory.path
    assert max(numbers(run, "rows/dropped")) < 1 and min(numbers(run, "grad/norm")) > 0  # answers all wrong are flat
    with pytest.warns(MmalignWarning, match="10 of them lack some of the columns"):
        examine(load(path, mixed_tasks(tmp_path, both=3)), RULES)
