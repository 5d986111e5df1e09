"""Real image-text-to-text classes at toy size: transformers' own forward and generate are the judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.language._looking import batch_of
from mmalign.adapters.language.image_text import ImageText
from mmalign.adapters.weights.lora import LoRA
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, DataError
from mmalign.core.protocols import TokenAdapter
from mmalign.core.types import Prompt
from mmalign.policies.tokens import Tokens
from tests.adapters.language.completions import MASK, ROWS, TOKENS, judged, plain
from tests.adapters.language.media import picture
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.language.tiny_vlm import MODELS, write_tiny_vlm

KINDS = list(MODELS)


PROMPTS = [
    Prompt("say two dogs asleep", {"image": picture(1)}),
    Prompt("a b"),
    Prompt("red cube a", {"image": picture(2)}),
    Prompt("say", {"first": picture(1), "second": picture(3)}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    root = tmp_path_factory.mktemp("pictures")

    def made(kind: str = "llava", chat: bool = False) -> Path:
        path = root / (f"{kind}-chat" if chat else kind)
        return path if path.exists() else write_tiny_vlm(path, kind, chat)

    return made


@pytest.fixture
def vlm(folder: Callable[..., Path]) -> Callable[..., Any]:
    def adapter(kind: str = "llava", chat: bool = False, **options: Any) -> Any:
        given = {"model": str(folder(kind, chat)), "device": "cpu", "lora": LoRA(rank=4, alpha=8), **options}
        return ImageText(**given).load()

    return adapter


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_gives_transformers_logits(vlm: Callable[..., Any], kind: str) -> None:
    """Mixed rows, one or two pictures or none, left padding, prompts shared by rows."""
    adapter = vlm(kind)
    assert adapter.network.split
    got = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    want = plain(adapter, PROMPTS, ROWS, TOKENS, MASK)
    assert want.std() > 0.1 and (got - want).abs().max() <= 2e-5 * want.abs().max()
    blind = [Prompt(p.text, {name: value.flip(-1) for name, value in p.media.items()}) for p in PROMPTS]
    assert (judged(adapter, blind, ROWS, TOKENS, MASK) - got)[[0, 1, 3]].abs().max() > 1e-3  # the pictures are seen
    adapter.share_prompts = False
    assert isinstance(adapter, TokenAdapter)
    whole = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    assert (whole - want).abs().max() <= 2e-5 * want.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_writing_step_by_step_is_the_replay(vlm: Callable[..., Any], kind: str) -> None:
    policy = Tokens(vlm(kind, chat=True), max_new_tokens=6)
    rollout = policy.sample([p for p in PROMPTS for _ in range(2)], torch.Generator().manual_seed(0))
    assert (rollout.step_logp - policy.step_log_prob(rollout)).abs().max() <= 1e-5
    alone = policy.sample(PROMPTS[3:], torch.Generator(), seeds=rollout.trajectory["seed"][6:7])
    count = int(alone.mask.sum())
    assert torch.equal(alone.trajectory["tokens"][0, :count], rollout.trajectory["tokens"][6, :count])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_generate(vlm: Callable[..., Any], kind: str) -> None:
    adapter = vlm(kind)
    policy = Tokens(adapter, max_new_tokens=5)
    made = policy.generate(PROMPTS[2:3], torch.Generator())
    given = adapter.encode(PROMPTS[2:3])[0]
    given = {name: value[None] if value.dim() == 1 else value for name, value in given.items()}
    want = adapter.network.model.generate(**given, do_sample=False, max_new_tokens=5)[0, given["input_ids"].shape[1] :]
    got = made.trajectory["tokens"][0][made.mask[0]]
    assert got.tolist() == want[: len(got)].tolist() and (want[len(got) :] == adapter.pad_id).all()


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_a_lora_is_of_the_language_model_and_plain_peft_loads_it(
    vlm: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    adapter = vlm(kind)
    names = list(adapter.trainable())
    assert names and all("language_model" in name for name in names)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.normal_(std=0.1)
    now = judged(adapter, PROMPTS, ROWS, TOKENS, MASK).detach()
    with adapter.reference(), torch.no_grad():
        assert (judged(adapter, PROMPTS, ROWS, TOKENS, MASK) - now).abs().max() > 1e-2
    adapter.save(tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(adapter.model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    given = adapter.encode(PROMPTS[:1])[0]
    given = {name: value[None] if value.dim() == 1 else value for name, value in given.items()}
    with torch.no_grad():
        assert torch.allclose(loaded(**given).logits[0, -1], now[0, 0], atol=1e-4)
    other = vlm(kind)
    other.restore(tmp_path)
    assert torch.equal(judged(other, PROMPTS, ROWS, TOKENS, MASK), now)


def test_a_whole_model_is_saved_with_its_processor(vlm: Callable[..., Any], tmp_path: Path) -> None:
    adapter = vlm("qwen2_vl", chat=True, train="full")
    assert any("visual" in name for name in adapter.trainable())
    loss = judged(adapter, PROMPTS, ROWS, TOKENS, MASK).square().mean()
    loss.backward()
    assert all(p.grad is not None for n, p in adapter.trainable().items() if "visual" in n)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight += 0.01
    now = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    adapter.save(tmp_path)
    again = ImageText(str(tmp_path), device="cpu", train="full").load()
    assert again.looking.chat and torch.allclose(judged(again, PROMPTS, ROWS, TOKENS, MASK), now, atol=1e-5)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_gradient_checkpointing_changes_no_gradient(vlm: Callable[..., Any], kind: str) -> None:
    grads = []
    for on in (False, True):
        adapter = vlm(kind, gradient_checkpointing=on)
        with torch.no_grad():
            for weight in adapter.trainable().values():
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        judged(adapter, PROMPTS, ROWS, TOKENS, MASK).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in adapter.trainable().values()]))
    assert grads[0].norm() > 0 and (grads[0] - grads[1]).norm() <= 1e-4 * grads[0].norm()


def test_a_written_picture_token_is_no_picture(vlm: Callable[..., Any]) -> None:
    adapter = vlm("llava", share_prompts=False)
    tokens = TOKENS.clone()
    tokens[0, 1] = place = adapter.network.model.config.image_token_id
    with pytest.raises(CapabilityError, match=f"a completion holds token {place}, which stands for a picture"):
        judged(adapter, PROMPTS, ROWS, tokens, MASK)
    adapter.share_prompts = True
    assert judged(adapter, PROMPTS, ROWS, tokens, MASK).isfinite().all()


def test_prompts_are_processed_once(vlm: Callable[..., Any]) -> None:
    """Pictures are decoded anew at each look: what counts is what they show."""
    adapter = vlm("idefics3")
    first = adapter.encode(PROMPTS)
    again = adapter.encode([Prompt(p.text, {n: v.clone() for n, v in p.media.items()}) for p in PROMPTS])
    assert all(a is b for a, b in zip(first, again, strict=True))
    other = adapter.encode([Prompt(PROMPTS[0].text, {"image": picture(9)})])[0]

    class Lazy(dict):  # a mapping of its own, like pictures in files
        looks = 0

        def items(self) -> Any:
            Lazy.looks += 1
            return super().items()

    from types import MappingProxyType

    lazy = Prompt(PROMPTS[0].text, MappingProxyType(Lazy(PROMPTS[0].media)))
    assert adapter.encode([lazy, lazy])[1] is first[0] and Lazy.looks == 1
    assert not torch.equal(other["pixel_values"], first[0]["pixel_values"])


def test_places_are_known_before_a_batch_moves(vlm: Callable[..., Any]) -> None:
    adapter = vlm("qwen2_vl")
    model, asked = adapter.network.model.base_model, adapter.encode(PROMPTS)
    batch = batch_of(asked, adapter.pad_id, model, adapter.takes, "meta")  # of which no number can be read
    assert batch.positions.shape == (3, *batch_of(asked, adapter.pad_id, model, adapter.takes, "cpu").ids.shape)
    held = [batch.ids, batch.mask, batch.positions, batch.following, *batch.along.values(), *batch.pictures.values()]
    assert all(value.device.type == "meta" for value in held)


def test_pictures_of_other_sizes(vlm: Callable[..., Any]) -> None:
    adapter = vlm("qwen2_vl")
    prompts = [Prompt("a", {"image": picture(1, 16, 8)}), Prompt("b c", {"image": picture(2, 8, 24)})]
    rows, tokens, mask = torch.tensor([0, 1]), TOKENS[:2], MASK[:2]
    got, want = judged(adapter, prompts, rows, tokens, mask), plain(adapter, prompts, rows, tokens, mask)
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()


def test_the_chat_template_is_the_processors(vlm: Callable[..., Any]) -> None:
    adapter = vlm("llava", chat=True, system="good")
    ids = adapter.encode(PROMPTS[:1])[0]["input_ids"]
    said = adapter.texts.tokenizer.decode(ids)
    assert said.count("<image>") == 16 and said.startswith("<unk> good <end> user <fake_")
    assert said.endswith("say two dogs asleep <end> assistant")


def test_what_cannot_be_had_is_said(vlm: Callable[..., Any], folder: Callable[..., Path], tmp_path: Path) -> None:
    adapter = vlm()
    with pytest.raises(CapabilityError, match=r"media.sound: image_text reads pictures .* this is \(1, 800\)"):
        adapter.encode([Prompt("a", {"sound": torch.zeros(1, 800)})])
    with pytest.raises(DataError, match="the processor refused a prompt with 1 pictures"):
        adapter.encode([Prompt("<image> <image> a", {"image": picture(1)})])
    with pytest.raises(DataError, match="longer than the model's context of 128"):
        adapter.begin(adapter.encode([Prompt("a " * 120)]), torch.tensor([0]), 20)
    with pytest.raises(ConfigError, match="chat: true, but the processor has no chat template"):
        ImageText(str(folder()), device="cpu", chat=True).load()
    with pytest.raises(CheckpointError, match="no model of AutoModelForImageTextToText could be built"):
        ImageText(str(write_tiny_lm(tmp_path / "lm", "llama")), device="cpu").load()
