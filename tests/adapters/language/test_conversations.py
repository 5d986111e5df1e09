"""Prompts of several turns: what each kind of language model reads of them, against the templates themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.language.image_text import ImageText
from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from tests.adapters.language.reward_models import reward_model, scores
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.data.conversations import assistant, system, user

CHAT = [system("good"), user("two dogs"), assistant("red cube"), user("say")]
PROMPT = Prompt("say", messages=CHAT)
PLACE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.fixture
def chat_folder(lm_folder: Callable[..., Path]) -> Path:
    return lm_folder("llama", True)


def test_a_conversation_of_its_own_system_keeps_it(lm: Callable[..., Any]) -> None:
    adapter: CausalLM = lm("llama", chat=True, system="bad")
    words = adapter.texts.tokenizer

    def ids(*messages: dict[str, Any]) -> list[int]:
        return list(words.apply_chat_template(list(messages), add_generation_prompt=True)["input_ids"])

    own, without = adapter.encode([PROMPT, replace(PROMPT, messages=CHAT[1:])])
    assert own["input_ids"].tolist() == ids(*CHAT)
    assert without["input_ids"].tolist() == ids(system("bad"), *CHAT[1:])
    (plain,) = adapter.encode([Prompt("say")])
    assert plain["input_ids"].tolist() == ids(system("bad"), user("say"))


def test_tools_of_a_single_turn_reach_the_template(lm: Callable[..., Any]) -> None:
    adapter: CausalLM = lm("qwen2", chat=True)
    adapter.texts.tokenizer.chat_template = "{{ tools[0]['name'] }} {{ messages[0]['content'] }}"
    (inputs,) = adapter.encode([Prompt("say", tools=[{"name": "look"}])])
    assert adapter.texts.tokenizer.decode(inputs["input_ids"]) == "look say"


def test_reward_models_read_the_conversation(chat_folder: Path) -> None:
    adapter = reward_model(chat_folder)
    other = replace(PROMPT, messages=[*CHAT[:2], assistant("bad"), CHAT[3]])
    values = scores(adapter, [PROMPT, other, Prompt("say")], ["a", "a", "a"])
    assert len(set(values.tolist())) == 3
    (row, *_) = adapter.read([PROMPT], ["a"])
    written = adapter.preprocessor.apply_chat_template([*CHAT, assistant("a")])["input_ids"]
    assert row["input_ids"].tolist() == list(written)
    assert adapter.reader().pair(PROMPT, "a") == len(written)
    with pytest.raises(DataError, match=r"a prompt is a conversation, and there is no chat template"):
        reward_model(chat_folder, chat=False).read([PROMPT], ["a"])


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("seen") / "llava", "llava", chat=True)


def test_pictures_are_compared_in_a_conversation(vlm_folder: Path) -> None:
    adapter = reward_model(vlm_folder, judges="image")
    asks = [user([PLACE, text("red")]), assistant([text("good")]), user("say")]
    light, dark = torch.full((3, 16, 16), 0.9), torch.full((3, 16, 16), 0.1)
    prompt = Prompt("say", {"image": light}, messages=asks)
    first, second = scores(adapter, [prompt, prompt], torch.stack([light, dark])).tolist()
    assert first != second
    shown = [*asks[:2], user([text("say"), PLACE])]  # the picture to be judged is the last thing said
    written = adapter.preprocessor.apply_chat_template(shown, add_generation_prompt=True)
    same = adapter.preprocessor(text=[written], images=[[*map(pil, (light, dark))]], return_tensors="pt")
    (row,) = adapter.read([prompt], dark[None])
    assert row["input_ids"].tolist() == same["input_ids"][0].tolist()
    torch.testing.assert_close(row["pixel_values"], same["pixel_values"])


def pil(picture: torch.Tensor) -> Any:
    from mmalign.media.image import to_pil

    return to_pil(picture)


def test_pictures_in_turns_change_the_answer(vlm_folder: Path) -> None:
    adapter = ImageText(str(vlm_folder), train="frozen", dtype="fp32", device="cpu").load()
    asks = [user([text("red"), PLACE]), assistant("good"), user([PLACE, text("say")])]
    light, dark = torch.full((3, 16, 16), 0.9), torch.full((3, 16, 16), 0.1)
    order = [Prompt("say", dict(zip(("image", "image_2"), pair, strict=True)), messages=asks) for pair in
             ((light, dark), (dark, light))]  # fmt: skip
    inputs = adapter.encode(order)
    assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
    features = adapter.begin(inputs, torch.tensor([0, 1]), 2).features
    assert not torch.allclose(features[0], features[1])
    reader = adapter.reader()
    assert reader.prompt(order[0]) == int((inputs[0]["input_ids"] != places(adapter)).sum()) + 2
    marked = replace(order[0], messages=[user("<image> red"), *asks[1:]])
    with pytest.raises(DataError, match=r"the prompt's text holds <image> 1 times"):
        reader.prompt(marked)
    with pytest.raises(DataError, match=r"there is no chat template"):
        ImageText(str(vlm_folder), train="frozen", chat=False).reader().prompt(order[0])


def places(adapter: ImageText) -> int:
    return int(adapter.looking.processor.tokenizer.convert_tokens_to_ids("<image>"))
