"""The lines of a report load what a tiny run saved, from any folder, as they stand; those of a card beside its base."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmalign
from mmalign.evaluation.card import card, card_facts
from mmalign.evaluation.run_record import read_run
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.evaluation.executed import executed
from tests.run.conftest import run_file, tiny_model  # noqa: F401  (fixtures)

TEXT = """
adapter: {{name: causal_lm, model: {model}, train: {train}, lora: {{rank: 2, alpha: 4}}}}
policy: {{name: tokens, max_new_tokens: 6}}
objective: {{name: grpo, group_size: 4}}
rewards: {{"a|[b]": {{name: length, low: 60, unit: characters}}}}
data: {{name: prompts, path: prompts.txt}}
trainer: {{steps: 1, prompts_per_step: 1}}
"""
SCORES = """
adapter: {{name: reward_model, model: {model}, train: {train}, chat: false, head: {{kind: {head}}}}}
policy: {{name: scorer}}
rewards: {{}}
objective: {{name: bradley_terry}}
data: {{name: preferences, path: pairs.jsonl}}
trainer: {{steps: 1, prompts_per_step: 2}}
"""


def written(folder: Path, text: str, **options: str) -> Path:
    """The directory of a run of a tiny language model."""
    (folder / "prompts.txt").write_text("say a\nsay b\n")
    rows = ['{"prompt": "say", "chosen": "a", "rejected": "b"}', '{"prompt": "say", "chosen": "b", "rejected": "c"}']
    (folder / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "run.yaml").write_text(text.format(model=write_tiny_lm(folder / "model"), **options))
    return mmalign.train(folder / "run.yaml", ["adapter.device=cpu"], out=folder / "run").directory.path


@pytest.mark.parametrize("train", ["lora", "full"])
def test_pictures_load_in_diffusers(tmp_path: Path, run_file: Callable[..., Path], train: str) -> None:  # noqa: F811
    few = ["trainer.steps=1", "trainer.save_every=0", "trainer.preview_every=0", "evaluation.count=1"]
    out = mmalign.train(run_file(train), [*few, "trainer.evaluate_every=0"], out=tmp_path / "run").directory.path
    (away := tmp_path / "elsewhere").mkdir()
    facts = card_facts(read_run(out))
    assert "mmalign" not in facts.here.replace(str(tmp_path), "")
    executed(facts.here, away, "assert pipe.transformer.config.num_layers")
    assert str(tmp_path) not in card(out) and 'base = "sd3"  # the folder of the base model' in card(out)
    (out / "sd3").symlink_to(read_run(out).run["adapter"]["model"])  # beside the card, as its lines say
    executed(facts.snippet, out)
    alone = shutil.copytree(out / facts.weights, tmp_path / "alone")  # the weights' folder, with its own card
    (alone / "sd3").symlink_to(read_run(out).run["adapter"]["model"])
    executed(
        (alone / "README.md").read_text().split("```python\n")[1].split("```")[0], alone, "assert pipe.transformer"
    )


@pytest.mark.parametrize("train", ["lora", "full"])
def test_language_models_load_in_peft_and_transformers(tmp_path: Path, train: str) -> None:
    out = written(tmp_path, TEXT, train=train)
    (away := tmp_path / "elsewhere").mkdir()
    executed(card_facts(read_run(out)).here, away, "assert model.generate")
    alone = shutil.copytree(out / card_facts(read_run(out)).weights, tmp_path / "alone")
    (alone / "model").symlink_to(tmp_path / "model")
    executed((alone / "README.md").read_text().split("```python\n")[1].split("```")[0], alone, "assert model.generate")
    text = card(out)
    assert r"| a\|\[b\] | `length` |" in text and str(tmp_path) not in text
    assert ("must scale it by 2." in text) == (train == "lora")


@pytest.mark.parametrize(
    ("train", "head", "library"),
    [("full", "linear", "transformers"), ("lora", "linear", "peft"), ("full", "mlp2", "mmalign")],
)
def test_reward_models_load_where_a_class_has_their_head(tmp_path: Path, train: str, head: str, library: str) -> None:
    out = written(tmp_path, SCORES, train=train, head=head)
    facts: Any = card_facts(read_run(out))
    assert facts.library == library and facts.task == "text-classification"
    (away := tmp_path / "elsewhere").mkdir()
    executed(facts.here, away)
