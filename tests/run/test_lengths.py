"""Rows that a language model cannot take are found before it is loaded, all at once, with their file and line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters import adapters
from mmalign.core.config import load
from mmalign.core.errors import CheckpointError, DataError
from mmalign.core.types import Prompt
from mmalign.data.batches import Batches
from mmalign.run.build import examine, training_rows
from mmalign.run.train import train
from tests.adapters.language import tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.run.text_runs import GRPO, RULES

SFT = """
adapter: {{name: causal_lm, model: {model}, lora: {{rank: 4}}}}
policy: {{name: tokens, max_new_tokens: 10}}
objective: {{name: sft}}
data: {{name: prompts, path: rows.jsonl}}
trainer: {{steps: 2, prompts_per_step: 2, lr: 1.0e-3}}
evaluation: {{count: 0}}
"""
DPO = SFT.replace("name: sft", "name: dpo").replace("name: prompts", "name: preferences")


@pytest.fixture
def write(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    def file(text: str, rows: list[dict[str, Any]], model: Path | None = None) -> Path:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "run.yaml").write_text(text.format(model=model or lm_folder("gpt2")))
        return tmp_path / "run.yaml"

    return file


def faults(path: Path, *changes: str) -> str:
    with pytest.raises(DataError) as caught:
        examine(load(path, changes), RULES)
    return str(caught.value)


LONG = "a " * 58
ONLINE = GRPO.replace("prompts.txt, held_out: 0.4", "rows.jsonl").replace("evaluation:", "evaluation:\n  count: 4")


def test_prompts_that_leave_no_room_for_what_is_sampled(write: Callable[..., Path], tmp_path: Path) -> None:
    said = faults(write(ONLINE, [{"prompt": "say"}, {"prompt": LONG}, {"prompt": "b"}, {"prompt": LONG + "b"}]))
    assert f"{tmp_path}/rows.jsonl:2: a prompt of 58 tokens and a completion of 10 are 4 more than" in said
    assert "rows.jsonl:4: a prompt of 59 tokens" in said and ":1:" not in said
    assert "2 rows are too long for a context of 64 tokens: shorten them, lower policy.max_new_tokens, or set" in said


def test_thirty_rows_are_counted_and_twenty_shown(write: Callable[..., Path]) -> None:
    said = faults(write(ONLINE, [{"prompt": f"{LONG} {i}"} for i in range(30)]))
    assert said.count("a prompt of 59 tokens") == 20 and "… and 10 more." in said and "30 rows are too long" in said


def test_targets_that_are_long_numbers_or_not_there(write: Callable[..., Path]) -> None:
    rows = [
        {"prompt": "say", "target": "good"},
        {"prompt": "say", "target": "a " * 70},
        {"prompt": "say", "target": 5},
        {"prompt": "say", "other": 1},
    ]
    said = faults(write(SFT, rows))
    assert "rows.jsonl:2: a prompt of 1 tokens and 'target' of 71 are 8 more than the model's context." in said
    assert "rows.jsonl:3: 'target' is 5 (int), not a text; put it in quotes in the file." in said
    assert "rows.jsonl:4: no 'target' to imitate; its other columns: other." in said
    examine(load(write(SFT, rows[:1])))
    pairs = [{"prompt": "a", "chosen": "good", "rejected": w} for w in ("bad", "b " * 70)]
    assert "rows.jsonl:2: a prompt of 1 tokens and 'rejected' of 71 are 8" in faults(write(DPO, pairs))


def test_long_rows_are_skipped_or_their_prompts_cut_and_said(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": "say", "target": "good"}, {"prompt": LONG + "b c", "target": "good bad a b c"},
            {"prompt": "a", "target": "a " * 70}]  # fmt: skip
    path = write(SFT, rows)
    with caplog.at_level(logging.WARNING, "mmalign"):
        parts, _ = examine(load(path, ["trainer.too_long=skip"]))
    assert [p.text for p in training_rows(parts)] == ["say"]
    assert "of the rows to train on, 0 were cut and 2 left out; the first: " in caplog.text
    parts, _ = examine(load(path, ["trainer.too_long=cut"]))
    assert [p.text for p in training_rows(parts)] == ["say", "a " * 56 + "b c"]
    finished = train(load(path, ["trainer.too_long=cut"]), out=tmp_path / "run")
    assert (finished.directory.path / "checkpoints" / "step_000002" / "done").exists()
    assert "leaves no row to train on" in faults(write(SFT, rows[2:]), "trainer.too_long=skip")


def test_rows_that_fit_alone_fit_in_one_batch(lm: Callable[..., Any]) -> None:
    """A long prompt with a short target beside a short one with a long target: no row is over the context."""
    adapter = lm("gpt2")
    prompts, outputs = [Prompt("a " * 58), Prompt("b")], ["c", "d " * 60]
    tokens, mask = adapter.tokenize(outputs)
    together = adapter.features(adapter.encode(prompts), torch.tensor([0, 1]), tokens, mask)
    for row in (0, 1):
        one, live = adapter.tokenize(outputs[row : row + 1])
        alone = adapter.features(adapter.encode(prompts[row : row + 1]), torch.tensor([0]), one, live)
        assert (together[row][mask[row]] - alone[0][live[0]]).abs().max() <= 1e-5 * alone.abs().max()


def test_markers_of_media_in_a_text(write: Callable[..., Path], tmp_path: Path) -> None:
    model = write_tiny_vlm(tmp_path / "vlm", "llava", chat=True)
    text = SFT.replace("causal_lm", "image_text")
    rows = [{"prompt": "say <image> a", "target": "b"}, {"prompt": "say", "target": "b"}]
    said = faults(write(text, rows, model))
    assert "rows.jsonl:1: the prompt's text holds <image> 1 times, a place for image: take it out, the chat" in said
    assert ":2:" not in said
    assert "or give it that many (it has 0)" in faults(write(text, rows, model), "adapter.chat=false")


def test_a_template_that_refuses_is_found_at_the_start(
    write: Callable[..., Path], tmp_path: Path, lm_folder: Callable[..., Path]
) -> None:
    import shutil

    model = shutil.copytree(lm_folder("llama", True), tmp_path / "strict")
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{% for m in messages %}{{ m['content'] }} <end> {% endfor %}"
    )
    for file in model.glob("*.jinja"):
        file.write_text(template)
    path = write(SFT, [{"prompt": "say", "target": "b"}], model)
    said = faults(path, "adapter.system=good")
    assert "rows.jsonl:1: the chat template refuses a conversation of system, user: no system here" in said


def test_a_resume_may_go_on_with_other_rows() -> None:
    before, after = Batches(list(range(8)), 4, 0), Batches(list(range(7)), 4, 0)
    for _ in range(3):
        next(before)
    with pytest.raises(CheckpointError, match=r"items = 8, this run has 7;.*trainer.other_data=true to go on"):
        after.load_state_dict(before.state_dict())
    after.other_data = True
    after.load_state_dict(before.state_dict())
    assert after.position == 2 * 7
    seen = [item for _ in range(7) for item in next(after)]
    assert sorted(seen[:7]) == list(range(7)) and sorted(seen[7:14]) == list(range(7))
    same = Batches(list(range(8)), 4, 0)
    same.other_data = True
    same.load_state_dict(before.state_dict())
    assert same.position == 12


RANKED = """
adapter: {{name: reward_model, model: {model}, train: full}}
policy: {{name: scorer}}
rewards: {{}}
objective: {{name: bradley_terry}}
data: {{name: preferences, path: rows.jsonl}}
trainer: {{steps: 2, batch: 2, lr: 1.0e-3}}
evaluation: {{count: 0}}
"""


def encoder(folder: Path) -> Path:
    """A BERT whose tokenizer makes pairs of texts: [bos] a [eos] b [eos]."""
    from tokenizers import processors
    from transformers import BertConfig, BertForMaskedLM

    words = tiny_lm.word_tokenizer()
    ends = [(f"<{name}>", words.convert_tokens_to_ids(f"<{name}>")) for name in ("bos", "eos")]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B:1 <eos>:1", special_tokens=ends
    )
    shape = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 64}
    config = BertConfig(**shape, num_hidden_layers=1, num_attention_heads=2, pad_token_id=words.pad_token_id)
    BertForMaskedLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(params=["gpt2", "llama", "bert", "llava"])
def judging(request: pytest.FixtureRequest, tmp_path: Path, lm_folder: Callable[..., Path]) -> Path:
    """A decoder without and one with a template, an encoder, and a model that sees."""
    if request.param == "bert":
        return encoder(tmp_path / "bert")
    if request.param == "llava":
        return write_tiny_vlm(tmp_path / "vlm", "llava", chat=True)
    return lm_folder(request.param, chat=request.param == "llama")


def test_a_reward_models_rows_are_measured_as_it_reads_them(judging: Path) -> None:
    adapter = adapters.get("reward_model")(model=str(judging), train="full", device="cpu")
    reader = adapter.reader(fetch=False)
    asked = [(Prompt("say a b"), "good"), (Prompt("a"), "bad bad c d")]
    counted = [reader.pair(*row) for row in asked]
    adapter.load()
    assert counted == [len(adapter.inputs.row(*row)["input_ids"]) for row in asked]
    assert reader.context == adapter.inputs.context


def test_long_rows_of_a_reward_model_are_found_at_the_start(write: Callable[..., Path], judging: Path) -> None:
    rows = [{"prompt": "say", "chosen": "good", "rejected": w} for w in ("bad", "b " * 3000, "c")]
    rows.append({"prompt": "a " * 3000, "chosen": "good", "rejected": "bad"})
    said = faults(write(RANKED, rows, judging))
    assert "rows.jsonl:2: a prompt with its 'rejected' of " in said and "more than the model's context." in said
    assert "rows.jsonl:4: a prompt with its '" in said and ":1:" not in said and ":3:" not in said
    assert "2 rows are too long for a context of " in said and "tokens: shorten them, or set trainer.too_long" in said
    examine(load(write(RANKED, rows[::2], judging)))


def test_long_rows_of_a_reward_model_are_skipped_or_cut(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": "say", "chosen": "good", "rejected": "bad"}, {"prompt": LONG + "b c", "chosen": "a " * 5,
            "rejected": "b"}, {"prompt": "a", "chosen": "c " * 70, "rejected": "b"}]  # fmt: skip
    path = write(RANKED, rows)
    parts, _ = examine(load(path, ["trainer.too_long=skip"]))
    assert [row.prompt.text for row in training_rows(parts)] == ["say"]
    parts, _ = examine(load(path, ["trainer.too_long=cut"]))
    kept = training_rows(parts)
    assert [row.prompt.text for row in kept] == ["say", "a " * 56 + "b c"] and kept[1].chosen == "a " * 5
    finished = train(load(path, ["trainer.too_long=cut"]), out=tmp_path / "run")
    assert (finished.directory.path / "checkpoints" / "step_000002" / "done").exists()


def test_a_benchmarks_rows_are_measured_too(write: Callable[..., Path], tmp_path: Path) -> None:
    pair = {"prompt": "say", "chosen": "good", "rejected": "bad"}
    asked = [
        {"prompt": "say", "chosen": ["good"], "rejected": ["bad", "b " * 70]},
        {"prompt": "say", "chosen": ["good"], "rejected": ["bad", 5]},
    ]
    path = write(RANKED, [pair, pair])
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    said = faults(path, "evaluation.prompts=asked.jsonl", "evaluation.count=4")
    assert "asked.jsonl:1: a prompt with its 'rejected' of 72 tokens is 8 more than the model's context." in said
    assert "asked.jsonl:2: 'rejected' is ['bad', 5]; expected a text or a list of texts." in said


def test_what_the_objective_reads_of_a_row_is_found_at_the_start(write: Callable[..., Path]) -> None:
    pair = {"prompt": "say", "chosen": "good", "rejected": "bad"}
    said = faults(write(RANKED, [pair, {**pair, "margin": -1}, {**pair, "tie": "maybe"}, {**pair, "margin": "0.5"}]))
    assert "rows.jsonl:2: 'margin' is -1; expected the lead of the chosen output, a number of at least 0 (swap" in said
    assert "rows.jsonl:3: 'tie' is 'maybe'; expected true or false." in said and said.count("rows.jsonl:") == 2
