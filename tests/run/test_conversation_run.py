"""Conversations train, measure and report as prompts of a text do; models that read one text refuse them."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmalign import load_reward
from mmalign.core.config import draft
from mmalign.core.errors import MmalignError
from mmalign.core.types import Rollout
from mmalign.evaluation.records import Evaluation
from mmalign.evaluation.report.page import write_report
from mmalign.media.image import write_image
from mmalign.run.build import examine
from mmalign.run.rows import read_output_rows
from mmalign.run.train import train
from tests.adapters.language.reward_models import reward_model
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.data.conversations import assistant, jsonl, user
from tests.run.conftest import RUN
from tests.run.text_runs import RULES

WORDS = ["a", "b", "c", "d"]
JUDGE = {"good": {"name": "tests.run.text_rules:share_of", "word": "good"}}


def turns(first: str) -> list[dict[str, Any]]:
    """Conversations that end with the same words and differ before."""
    return [user(first), assistant("two dogs"), user("say")]


@pytest.fixture
def run_file(tmp_path: Path, lm_folder: Callable[..., Path]) -> Callable[..., Path]:
    def write(data: dict[str, Any], objective: dict[str, Any], chat: bool = True, **more: Any) -> Path:
        run = {
            "adapter": {"name": "causal_lm", "model": str(lm_folder("llama", chat)), "lora": {"rank": 8, "alpha": 16}},
            "policy": {"name": "tokens", "max_new_tokens": 5},
            "objective": objective,
            "data": data,
            "trainer": {"steps": 30, "prompts_per_step": 4, "lr": 3e-2},
            **more,
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(run))
        return path

    return write


@pytest.fixture
def chat_rewarder(tmp_path: Path, lm_folder: Callable[..., Path]) -> Path:
    adapter = reward_model(lm_folder("llama", True), train="full")
    adapter.save(tmp_path / "rewarder")
    return tmp_path / "rewarder"


def test_what_was_said_before_decides_the_answer(run_file: Callable[..., Path], tmp_path: Path) -> None:
    answers = {"a": "good", "b": "bad", "c": "cube", "d": "red"}
    jsonl(tmp_path / "c.jsonl", *({"messages": [*turns(w), assistant(answers[w])]} for w in WORDS))
    data = {"name": "conversations", "path": "c.jsonl", "held_out_path": "c.jsonl"}
    path = run_file(data, {"name": "sft"}, evaluation={"judges": JUDGE})
    finished = train(path, out=tmp_path / "run", allow=RULES)
    end = Evaluation.load(tmp_path / "run" / "evaluation" / "after")
    assert [p.messages[0]["content"] for p in end.prompts] == WORDS and {p.text for p in end.prompts} == {"say"}
    assert end.outputs == [answers[w] for w in WORDS]
    assert finished.rows[0].after == pytest.approx(0.25)
    page = html.unescape(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "user: a\nassistant: two dogs\nuser: say" in page and "user: b\nassistant: two dogs" in page


def test_conversations_are_sampled_from_and_compared(run_file: Callable[..., Path], tmp_path: Path) -> None:
    jsonl(tmp_path / "p.jsonl", *({"prompt": turns(w)} for w in WORDS))
    path = run_file({"name": "prompts", "path": "p.jsonl"}, {"name": "grpo", "group_size": 8}, rewards=JUDGE)
    train(path, ["trainer.steps=8"], out=tmp_path / "grpo", allow=RULES)
    lines = [json.loads(line) for line in (tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward/good"] for line in lines if "reward/good" in line]
    assert rewards[-1] > rewards[0] + 0.2
    sides = [{"chosen": [*turns(w), assistant("good")], "rejected": [*turns(w), assistant("bad")]} for w in WORDS]
    jsonl(tmp_path / "d.jsonl", *sides)
    path = run_file({"name": "preferences", "path": "d.jsonl"}, {"name": "dpo"})
    train(path, ["trainer.steps=8", "trainer.lr=3e-3"], out=tmp_path / "dpo", allow=RULES)
    lines = [json.loads(line) for line in (tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()]
    accuracy = [line["margin/accuracy"] for line in lines if "margin/accuracy" in line]
    assert accuracy[-1] == 1.0


def test_conversations_about_pictures(run_file: Callable[..., Path], tmp_path: Path) -> None:
    write_tiny_vlm(tmp_path / "vlm", "llava", chat=True)
    for name, value in (("light", 0.9), ("dark", 0.1)):
        write_image(torch.full((3, 16, 16), value), tmp_path / f"{name}.png")
    place = {"type": "image"}
    asks = [
        user([place, {"type": "text", "text": "a"}]),
        assistant("b"),
        user([{"type": "text", "text": "say"}, place]),
    ]
    orders = {"good": ["light.png", "dark.png"], "bad": ["dark.png", "light.png"]}
    rows = [{"messages": [*asks, assistant(word)], "images": files} for word, files in orders.items()]
    jsonl(tmp_path / "c.jsonl", *rows)
    path = run_file({"name": "conversations", "path": "c.jsonl", "held_out_path": "c.jsonl"}, {"name": "sft"})
    run = yaml.safe_load(path.read_text()) | {"evaluation": {"judges": JUDGE}}
    run["adapter"] |= {"name": "image_text", "model": str(tmp_path / "vlm")}
    run["trainer"] |= {"prompts_per_step": 2}
    path.write_text(yaml.safe_dump(run))
    train(path, out=tmp_path / "run", allow=RULES)
    end = Evaluation.load(tmp_path / "run" / "evaluation" / "after")
    assert end.outputs == list(orders) and list(end.prompts[0].messages) == asks
    assert end.prompts[0].shown == "user: [image] a\nassistant: b\nuser: say [image]"
    assert set(end.prompt_pictures) == {0, 1}


def test_models_without_a_template_refuse_conversations(run_file: Callable[..., Path], tmp_path: Path) -> None:
    jsonl(tmp_path / "p.jsonl", *({"prompt": turns(w)} for w in WORDS))
    path = run_file({"name": "prompts", "path": "p.jsonl"}, {"name": "grpo"}, chat=False, rewards=JUDGE)
    with pytest.raises(MmalignError, match=r"p\.jsonl:1: a prompt is a conversation, and there is no chat template"):
        examine(draft(path), allow=RULES)


def test_long_conversations_lose_their_oldest_turns(
    run_file: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = [turn for _ in range(12) for turn in (user("a b c"), assistant("two dogs"))]
    jsonl(tmp_path / "p.jsonl", {"prompt": [*long, user("say")]})
    path = run_file({"name": "prompts", "path": "p.jsonl"}, {"name": "grpo"}, rewards=JUDGE)
    with pytest.raises(MmalignError, match=r"p\.jsonl:1: a prompt of 112 tokens and a completion of 5 are 53 more"):
        examine(draft(path), allow=RULES)
    less = ["trainer.too_long=cut", "trainer.steps=1", "trainer.prompts_per_step=1"]
    train(path, less, out=tmp_path / "run", allow=RULES)  # what did not fit would stop it
    assert "1 were cut and 0 left out" in caplog.text


def test_generators_refuse_conversations(tiny_model: Path, tmp_path: Path) -> None:
    jsonl(tmp_path / "p.jsonl", {"prompt": turns("a")})
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(model=tiny_model, train="lora").replace("prompts.txt, held_out: 0.4", "p.jsonl"))
    with pytest.raises(MmalignError, match=r"p\.jsonl:1: is a conversation of 3 messages, and this adapter reads one"):
        examine(draft(path))


def test_outputs_of_conversations_are_scored(tmp_path: Path, chat_rewarder: Path) -> None:
    rows = [{"prompt": turns(first), "output": "good"} for first in ("a", "b")]
    read = read_output_rows(Path(jsonl(tmp_path / "o.jsonl", *rows, {"prompt": "say", "output": "good"})))
    assert [row.prompt.text for row in read] == ["say"] * 3 and len({row.group for row in read}) == 3
    judge = load_reward("reward_model", model=str(chat_rewarder))
    values = judge(Rollout.of([row.prompt for row in read], [row.output for row in read])).value
    assert len(set(values.tolist())) == 3
    jsonl(tmp_path / "b.jsonl", {"prompt": [user("a"), assistant("b")], "output": "x"}, {"prompt": [], "output": "x"})
    with pytest.raises(MmalignError) as caught:
        read_output_rows(tmp_path / "b.jsonl")
    first, second = str(caught.value).split("\n")
    assert "b.jsonl:1: what is asked ends with the turn of assistant" in first
    assert "b.jsonl:2: field 'prompt' must be str, found []" in second
