"""Rows of conversations give the tokens and the masks of TRL's own preparation and collators.

One deviation is meant, and is what `Ending` does: a completion ends with the token that stops generation, so the line
break that ChatML writes behind `<|im_end|>` is not trained. With `assistant_only_loss`, TRL trains what a template
marks as generated; the Qwen ones mark the line break before an answer too, which stands in the prompt here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import trl
from PIL import Image

from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.language.image_text import ImageText
from mmalign.adapters.tokens.texts import padded
from mmalign.core.errors import DataError
from mmalign.core.types import Example, Preference, Prompt
from mmalign.data.sources.conversations import Conversations
from mmalign.data.sources.preferences import Preferences
from mmalign.data.sources.prompts import Prompts
from mmalign.media.image import write_image
from mmalign.policies.tokens import Tokens
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.data.conversations import assistant, jsonl, system, user

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TOOL = {"type": "function", "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}}
CALLS = [{"type": "function", "function": {"name": "look", "arguments": {"at": "cube"}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": CALLS}
CHAT = [system("be good"), user("two dogs asleep"), assistant("red cube"), user("say: a b, c!")]
PROMPTS: list[dict[str, Any]] = [
    {"prompt": [user("say red cube")]},
    {"prompt": CHAT},
    {"prompt": [user("Is the cube red?"), CALL, {"role": "tool", "name": "look", "content": "red"}], "tools": [TOOL]},
]
ANSWERS = ["Yes, two dogs.", "No"]

Made = Callable[[str], CausalLM]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Made:
    def make(template: str) -> CausalLM:
        folder = write_tiny_lm(tmp_path_factory.mktemp(template), "qwen2")
        (folder / "chat_template.jinja").write_text((TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"))
        return CausalLM(str(folder), train="frozen", dtype="fp32", device="cpu").load()

    return make


def sequence(adapter: CausalLM, prompt: Prompt, answer: str) -> tuple[list[int], list[bool]]:
    """Ids of a prompt with its answer, and which of them are trained."""
    ids = adapter.encode([prompt])[0]["input_ids"].tolist()
    tokens, mask = adapter.tokenize([answer])
    completion = tokens[0][mask[0]].tolist()
    return ids + completion, [False] * len(ids) + [True] * len(completion)


def batch(adapter: CausalLM, rows: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, live = padded([row for row, _ in rows], adapter.pad_id, "right")
    trained, _ = padded([[int(one) for one in mask] for _, mask in rows], 0, "right")
    return ids, trained.bool() & live


def without_break(adapter: CausalLM, ids: torch.Tensor, trained: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's batch without the line break behind the last `<|im_end|>` of each row, the deviation that is meant."""
    line_break = adapter.texts.tokenizer("\n")["input_ids"]
    rows = []
    for row, mask in zip(ids.tolist(), trained.tolist(), strict=True):
        end = max(i for i, one in enumerate(mask) if one) + 1
        assert row[end - 1 : end] == line_break and row[end - 2] in adapter.stop_ids
        rows.append((row[: end - 1], mask[: end - 1]))
    return batch(adapter, rows)


def prepared_by_sft(adapter: CausalLM, rows: list[dict[str, Any]], **settings: Any) -> dict[str, torch.Tensor]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

    words = adapter.texts.tokenizer
    args: dict[str, Any] = {
        "dataset_num_proc": None,
        "dataset_text_field": "text",
        "assistant_only_loss": False,
        "max_length": None,
    }
    args["shuffle_dataset"] = False
    trainer: Any = SimpleNamespace(_tokenizer=words, chat_template=None, completion_only_loss=True)
    config: Any = SimpleNamespace(**args | settings)
    dataset: Any = SFTTrainer._prepare_dataset(
        trainer, datasets.Dataset.from_list(rows), words, config, False, None, "train"
    )
    return DataCollatorForLanguageModeling(pad_token_id=adapter.pad_id)([dict(row) for row in dataset])


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3_instruct_2507"])
def test_sft(template: str, model: Made, tmp_path: Path) -> None:
    adapter = model(template)
    rows = [{**row, "completion": [assistant(answer)]} for row in PROMPTS for answer in ANSWERS]
    examples: list[Example] = list(Conversations(jsonl(tmp_path / "a.jsonl", *rows)).training_items())
    ids, trained = batch(adapter, [sequence(adapter, each.prompt, each.output) for each in examples])
    as_json = [{**row, "prompt": row["prompt"], "tools": json.dumps(row.get("tools", []))} for row in rows]
    peers = [prepared_by_sft(adapter, [row]) for row in as_json]  # one at a time: Arrow would fill rows with nulls
    for i, peer in enumerate(peers):
        theirs, mask = without_break(adapter, peer["input_ids"], peer["labels"] != -100)
        length = theirs.shape[1]
        assert ids[i, :length].tolist() == theirs[0].tolist() and trained[i].sum() == mask.sum()
        assert trained[i, :length].tolist() == mask[0].tolist()


def test_sft_of_every_turn(model: Made, tmp_path: Path) -> None:
    adapter = model("qwen2_5_training")
    rows = [{"messages": [*CHAT, assistant(answer)]} for answer in ANSWERS]
    examples = list(Conversations(jsonl(tmp_path / "a.jsonl", *rows), imitate="each").training_items())
    peer = prepared_by_sft(adapter, rows, assistant_only_loss=True)
    line_break = adapter.texts.tokenizer("\n")["input_ids"][0]
    for i, turns in enumerate((examples[:2], examples[2:])):
        theirs = peer["input_ids"][i].tolist()
        marked = {at for at, label in enumerate(peer["labels"][i].tolist()) if label != -100}
        union = set[int]()
        for each in turns:
            ids, trained = sequence(adapter, each.prompt, each.output)
            assert theirs[: len(ids)] == ids  # each turn stands behind the very tokens of the whole conversation
            union |= {at for at, one in enumerate(trained) if one}
        assert union < marked and all(theirs[at] == line_break for at in marked - union)
        assert len(marked - union) == 4  # before and behind each of two answers


RESULT = {"role": "tool", "name": "look", "content": "it is red"}
USED = [system("be good"), user("Is the cube red?"), CALL, RESULT, assistant("Yes, two dogs.")]


def given(adapter: Any, example: Example) -> tuple[list[int], list[bool]]:
    """Ids of a prompt with its answer, and which of them are trained, as the policy gets them."""
    rollout = Tokens(adapter).observe([example.prompt], [example.output])
    live = rollout.trajectory.get("live", rollout.mask)[0]
    ids = adapter.encode([example.prompt])[0]["input_ids"].tolist()
    completion = rollout.trajectory["tokens"][0][live].tolist()
    assert rollout.mask is not None
    return ids + completion, [False] * len(ids) + rollout.mask[0][live].tolist()


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1", "glm4moe"])
@pytest.mark.parametrize("as_text", [True, False])
def test_sft_of_an_answer_that_calls(template: str, as_text: bool, model: Made, tmp_path: Path) -> None:
    adapter = model(template)
    arguments: Any = {"at": "cube"}
    calls = [{"type": "function", "function": {"name": "look", "arguments": arguments}}]
    row = {"prompt": USED[:2], "completion": [{"role": "assistant", "content": "", "tool_calls": calls}]}
    written = json.loads(json.dumps(row))
    if as_text:
        written["completion"][0]["tool_calls"][0]["function"]["arguments"] = json.dumps(arguments)
    (example,) = Conversations(jsonl(tmp_path / "a.jsonl", {**written, "tools": [TOOL]})).training_items()
    ids, trained = given(adapter, example)
    peer = prepared_by_sft(adapter, [{**row, "tools": json.dumps([TOOL])}])
    theirs, labels = peer["input_ids"][0].tolist(), (peer["labels"][0] != -100).tolist()
    words = adapter.texts.tokenizer
    assert ids == theirs[: len(ids)] and trained == labels[: len(ids)] and any(trained)
    assert words.decode(theirs[len(ids) :]).strip() == "" and "look" in words.decode(ids)


@pytest.mark.parametrize("template", ["qwen2_5_training", "qwen3_training"])
def test_sft_of_a_whole_conversation(template: str, model: Made, tmp_path: Path) -> None:
    adapter = model(template)
    talks = [[*CHAT, assistant("No")], USED]
    for number, talk in enumerate(talks):
        file = jsonl(tmp_path / f"{number}.jsonl", {"messages": talk, "tools": [TOOL]})
        (example,) = Conversations(file, imitate="all").training_items()
        ids, trained = given(adapter, example)
        peer = prepared_by_sft(adapter, [{"messages": talk, "tools": json.dumps([TOOL])}], assistant_only_loss=True)
        theirs, labels = peer["input_ids"][0].tolist(), (peer["labels"][0] != -100).tolist()
        assert ids == theirs[: len(ids)]
        more = [at for at, (label, one) in enumerate(zip(labels, [*trained, False], strict=False)) if label and not one]
        line_break = adapter.texts.tokenizer("\n")["input_ids"][0]
        assert all(not one or label for one, label in zip(trained, labels, strict=False))
        assert all(theirs[at] == line_break for at in more) and len(more) <= 4  # around each of two answers
        assert sum(trained) > 4 and not all(trained[trained.index(True) :])  # what stands between is not trained


def test_every_turn_alone_and_all_of_them_train_the_same_tokens(model: Made, tmp_path: Path) -> None:
    adapter = model("qwen2_5")
    adapter.context = 1024  # the tiny model's is 64
    policy = Tokens(adapter)
    file = jsonl(tmp_path / "a.jsonl", {"messages": USED, "tools": [TOOL]})
    (whole,) = Conversations(file, imitate="all").training_items()
    turns = list(Conversations(file, imitate="each").training_items())
    assert len(turns) == 2
    sums = []
    for examples in ([whole], turns):
        rollout = policy.observe([e.prompt for e in examples], [e.output for e in examples])
        sums.append((float(policy.log_prob(rollout, {}).sum().detach()), int(rollout.mask.sum())))
    assert sums[0][1] == sums[1][1] and sums[0][0] == pytest.approx(sums[1][0], rel=1e-5)


def test_what_a_template_cannot_say_is_refused(model: Made, tmp_path: Path) -> None:
    thought = {**assistant("red cube"), "reasoning_content": "two dogs"}
    thinks = [user("say red cube"), thought, user("say"), assistant("a")]
    (example,) = Conversations(jsonl(tmp_path / "t.jsonl", {"messages": thinks}), imitate="all").training_items()
    with pytest.raises(DataError, match=r"writes an earlier answer in another way .* set data\.imitate: each, or last"):
        Tokens(model("qwen3")).observe([example.prompt], [example.output])
    plain = model("qwen2_5")
    plain.texts.tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for row in ({"messages": USED[:3]}, {"messages": USED}, {"messages": [*CHAT, assistant("No")], "tools": [TOOL]}):
        (example,) = Conversations(jsonl(tmp_path / "u.jsonl", row)).training_items()
        with pytest.raises(DataError, match=r"the chat template writes no tools .* a model whose template knows"):
            plain.encode([example.prompt])
            Tokens(plain).observe([example.prompt], [example.output])
    silent = model("qwen2_5")
    silent.texts.chat, silent.texts.writer = False, None
    (example,) = Conversations(jsonl(tmp_path / "v.jsonl", {"messages": USED[1:3]})).training_items()
    with pytest.raises(DataError, match=r"calls tools or has several turns, and there is no chat template"):
        Tokens(silent).observe([example.prompt], [example.output])


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3_instruct_2507"])
@pytest.mark.parametrize("explicit", [True, False])
def test_dpo(template: str, explicit: bool, model: Made, tmp_path: Path) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

    adapter = model(template)
    chosen, rejected = ([assistant(answer)] for answer in ANSWERS)
    rows = [{**row, "chosen": chosen, "rejected": rejected} for row in PROMPTS[:2]]
    if not explicit:
        rows = [{"chosen": row["prompt"] + chosen, "rejected": row["prompt"] + rejected} for row in rows]
    pairs: list[Preference] = list(Preferences(jsonl(tmp_path / "a.jsonl", *rows)).training_items())
    sides = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    ours = batch(adapter, [sequence(adapter, prompt, answer) for prompt, answer in sides])
    words = adapter.texts.tokenizer
    args: Any = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    dataset = datasets.Dataset.from_list(rows)
    trainer: Any = SimpleNamespace(_tokenizer=words)
    ready = DPOTrainer._prepare_dataset(trainer, dataset, words, args, "train")
    peer = DataCollatorForPreference(pad_token_id=adapter.pad_id)([dict(row) for row in ready])
    theirs = without_break(adapter, peer["input_ids"], peer["completion_mask"].bool())
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_5_think"])
def test_grpo(template: str, model: Made, tmp_path: Path) -> None:
    from trl import GRPOTrainer

    adapter = model(template)
    prompts = list(Prompts(jsonl(tmp_path / "a.jsonl", *PROMPTS)).training_items())
    ours = [inputs["input_ids"].tolist() for inputs in adapter.encode(prompts)]
    for row, ids in zip(PROMPTS, ours, strict=True):
        trainer: Any = SimpleNamespace(
            _is_vlm=False,
            environment_factories=None,
            tools=row.get("tools"),
            chat_template=None,
            chat_template_kwargs={},
            processing_class=adapter.texts.tokenizer,
        )
        assert GRPOTrainer._tokenize_prompts(trainer, [row["prompt"]])[0] == [ids]


SEEN = [system("good"), user("red cube"), assistant("two dogs"), user("say")]


@pytest.fixture(params=["llava", "qwen2_vl", "idefics3", "gemma3"])
def seeing(request: pytest.FixtureRequest, tmp_path: Path) -> ImageText:
    """An adapter beside two pictures."""
    for name, value in (("a", 0.2), ("b", 0.7)):
        write_image(torch.full((3, 16, 16), value), tmp_path / f"{name}.png")
    folder = write_tiny_vlm(tmp_path / request.param, request.param, chat=True)
    return ImageText(str(folder), train="frozen", dtype="fp32", device="cpu").load()


def pixels_of(stored: Any) -> torch.Tensor:
    """A processor's pixels: a tensor, or a list with that of each picture."""
    return stored if isinstance(stored, torch.Tensor) else torch.stack([torch.as_tensor(one) for one in stored])


@pytest.mark.parametrize("several", [True, False])
def test_sft_and_dpo_with_pictures(seeing: ImageText, several: bool, tmp_path: Path) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    files = ["a.png", "b.png"] if several else ["b.png"]
    pictures = [Image.open(tmp_path / name).convert("RGB") for name in files]
    words, processor = [[assistant("red cube good")], [assistant("bad")]], seeing.looking.processor
    seen = {"images": files} if several else {"image": files[0]}
    file = jsonl(tmp_path / "s.jsonl", {"prompt": SEEN, "completion": words[0], **seen})
    (example,) = Conversations(file).training_items()
    shown = [{"images": pictures, "prompt": SEEN, "completion": words[0]}]
    peer = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(shown)
    ids, trained = whole_of(seeing, example.prompt, [example.output])
    assert torch.equal(ids, peer["input_ids"]) and torch.equal(trained, peer["labels"] != -100)
    (inputs,) = seeing.encode([example.prompt])
    torch.testing.assert_close(inputs["pixel_values"].reshape_as(peer["pixel_values"]), peer["pixel_values"])

    sides = {"chosen": words[0], "rejected": words[1]}
    (pair,) = Preferences(jsonl(tmp_path / "d.jsonl", {"prompt": SEEN, **sides, **seen})).training_items()
    compared = [{"images": pictures, "prompt": SEEN, **sides}]
    peer = DataCollatorForVisionPreference(processor)(compared)
    ids, trained = whole_of(seeing, pair.prompt, [pair.chosen, pair.rejected])
    live = peer["attention_mask"].bool()
    assert torch.equal(ids[live], peer["input_ids"][live]) and torch.equal(trained, peer["completion_mask"].bool())


def whole_of(adapter: ImageText, prompt: Prompt, answers: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L) of a prompt with each answer, and which of them are trained."""
    ids = adapter.encode([prompt])[0]["input_ids"]
    tokens, mask = adapter.tokenize(answers)
    before = ids.expand(len(answers), -1)
    return torch.cat([before, tokens], 1), torch.cat([torch.zeros_like(before, dtype=torch.bool), mask], 1)


def test_grpo_with_pictures(seeing: ImageText, tmp_path: Path) -> None:
    from trl import GRPOTrainer

    word, place = {"type": "text", "text": "red cube"}, {"type": "image"}
    asks = [system("good"), user([word, place]), assistant("two dogs"), user([place, {"type": "text", "text": "say"}])]
    row = {"prompt": asks, "images": ["a.png", "b.png"]}
    (prompt,) = Prompts(jsonl(tmp_path / "a.jsonl", row)).training_items()
    (ours,) = seeing.encode([prompt])
    pictures = iter([Image.open(tmp_path / name).convert("RGB") for name in ("a.png", "b.png")])
    filled = [
        {**turn, "content": [{**part, "image": next(pictures)} if part == place else part for part in turn["content"]]}
        if isinstance(turn["content"], list)
        else turn
        for turn in asks
    ]
    trainer: Any = SimpleNamespace(
        _is_vlm=True,
        environment_factories=None,
        tools=None,
        chat_template=None,
        chat_template_kwargs={},
        processing_class=seeing.looking.processor,
    )
    ids, images, fields = GRPOTrainer._tokenize_prompts(trainer, [filled])
    assert [ours["input_ids"].tolist()] == ids and len(images[0]) == 2
    pixels = pixels_of(fields["pixel_values"])
    torch.testing.assert_close(ours["pixel_values"].reshape(pixels.shape), pixels)
