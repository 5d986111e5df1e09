"""What ends a text is what the chat template puts there, for given texts and for the policy's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.language.image_text import ImageText
from mmalign.adapters.tokens.texts import Texts, appended
from mmalign.core.errors import DataError
from mmalign.core.types import Prompt
from mmalign.objectives.sft import SFT
from mmalign.policies.tokens import Tokens
from tests.adapters.language.tiny_lm import word_tokenizer, write_tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm

EOS, BOS, END, GOOD = 1, 2, 3, 16
#: As templates of published families end a turn.
TEMPLATES = {
    "chatml": "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end>\n{% endfor %}",
    "phi": "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end>\n{% endfor %}"
    "{% if not add_generation_prompt %}{{ ' ' + eos_token }}{% endif %}",
    "gemma": "{{ bos_token }} {% for m in messages %}{{ m['role'] }} {{ m['content'] | trim }} <end>\n{% endfor %}",
    "llama": "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ eos_token }}{% endfor %}",
    "open": "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}",
    "strict": "{% if messages[-1]['role'] != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}say",
}
WANTED = {"chatml": END, "phi": END, "gemma": END, "llama": EOS, "open": EOS, "strict": EOS}


def texts(template: str | None, stops: tuple[int, ...] = (EOS, END), **more: Any) -> Texts:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = None if template is None else TEMPLATES[template]
    return Texts(tokenizer, stops, **more)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_given_text_ends_as_the_template_ends_a_turn(template: str) -> None:
    made = texts(template)
    assert made.tokenize(["good"], "cpu")[0].tolist() == [[GOOD, WANTED[template]]]
    if template not in ("open", "strict"):  # as transformers writes the whole conversation
        talk = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "good"}]
        whole = made.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
        assert whole[whole.index(GOOD) :][:2] == made.completion_ids("good")


def test_a_turn_that_nothing_names_as_an_end_is_where_sampling_stops_too() -> None:
    made = texts("chatml", stops=(EOS,))
    assert made.stop_ids == (EOS, END) and made.completion_ids("good") == [GOOD, END]
    assert made.decode(torch.tensor([[GOOD, END]]), torch.ones(1, 2, dtype=torch.bool)) == ["good"]


def test_without_a_template_the_tokenizers_end_is_it() -> None:
    assert texts(None).completion_ids("good") == [GOOD, EOS]
    assert texts("chatml", chat=False).completion_ids("good") == [GOOD, EOS]
    assert texts(None, stops=(END,)).completion_ids("good") == [GOOD, END]


@pytest.mark.parametrize("template", ["chatml", "phi", "llama", None])
def test_a_text_that_already_ends_gets_no_second_end(template: str | None) -> None:
    made = texts(template)
    end = made.completion_ids("good")[-1]
    for given in ("good <end>", "good <eos>", "good <end>\n", "good <end> <eos>", "good"):
        assert made.completion_ids(given) == [GOOD, end], given
        answered = list(made.answered_ids(Prompt("say"), given))
        assert answered.count(end) == list(made.answered_ids(Prompt("say"), "good")).count(end)
    assert made.completion_ids("") == [end]
    word = texts(template, stops=(EOS, END, GOOD))  # a stop that is a word belongs to the text
    assert word.completion_ids("a good") == [5, GOOD] and word.completion_ids("a")[-1] == end


def test_an_end_that_a_tokenizer_appends_is_not_put_behind_prompts() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = word_tokenizer()
    both = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)])
    tokenizer.backend_tokenizer.post_processor = both
    assert tokenizer("a")["input_ids"] == [BOS, 5, EOS] and appended(tokenizer) == (EOS,)
    made = Texts(tokenizer, (EOS,))
    assert made.prompt_ids(Prompt("a")) == (BOS, 5) and made.prompt_ids(Prompt("")) == (BOS,)
    assert made.answered_ids(Prompt("a"), "good") == (BOS, 5, GOOD, EOS)
    assert appended(word_tokenizer()) == ()


def test_a_template_that_refuses_says_so_in_a_sentence() -> None:
    made = texts("chatml")
    made.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"the chat template refuses a conversation of user: roles must alternate"):
        made.prompt_ids(Prompt("say"))


def relabelled(folder: Path, write: Callable[..., Any], **more: Any) -> Path:
    """A chat model whose tokenizer's eos is not what ends a turn, as published ones are."""
    write(folder, chat=True, **more)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [EOS, END]
    return folder


@pytest.mark.parametrize("kind", ["language", "image-text"])
def test_every_family_trains_the_end_that_its_template_writes(kind: str, tmp_path: Path) -> None:
    if kind == "language":
        adapter: Any = CausalLM(str(relabelled(tmp_path, write_tiny_lm, kind="llama")), device="cpu").load()
    else:
        adapter = ImageText(str(relabelled(tmp_path, write_tiny_vlm)), device="cpu").load()
    tokens, mask = adapter.tokenize(["good", "a b"])
    assert tokens.tolist() == [[GOOD, END, 0], [5, 6, END]] and mask.tolist() == [[True, True, False], [True] * 3]
    policy = Tokens(adapter, max_new_tokens=4)
    with torch.no_grad():
        given = SFT().collect(policy, [Prompt("say", meta={"target": "good"})], torch.Generator())
        assert given.rollout.trajectory["tokens"].tolist() == [[GOOD, END]]
