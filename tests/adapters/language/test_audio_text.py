"""Real audio-text classes at toy size: transformers' own forward and generate are the judges."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.language.audio_text import AudioText, model_class
from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.language.image_text import ImageText
from mmalign.adapters.weights.lora import LoRA
from mmalign.core.errors import CapabilityError, CheckpointError, DataError
from mmalign.core.protocols import TokenAdapter
from mmalign.core.types import Audio, Prompt
from mmalign.data.sources.conversations import Conversations
from mmalign.data.sources.prompts import Prompts
from mmalign.media.audio import read_audio, write_audio
from mmalign.policies.tokens import Tokens
from tests.adapters.language.completions import MASK, ROWS, TOKENS, judged, plain
from tests.adapters.language.media import sound
from tests.adapters.language.tiny_alm import MODELS, RATE, write_tiny_alm
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.data.conversations import assistant, jsonl, user

KINDS = list(MODELS)


PROMPTS = [
    Prompt("say two dogs asleep", {"audio": sound(1)}),
    Prompt("a b"),
    Prompt("red cube a", {"audio": sound(2, 0.9)}),
    Prompt("say", {"first": sound(1), "second": sound(3, 0.2)}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("sounds")

    def made(kind: str = "qwen2_audio") -> Path:
        return root / kind if (root / kind).exists() else write_tiny_alm(root / kind, kind)

    return made


@pytest.fixture
def alm(folder: Callable[[str], Path]) -> Callable[..., Any]:
    def adapter(kind: str = "qwen2_audio", **options: Any) -> Any:
        given = {"model": str(folder(kind)), "device": "cpu", "lora": LoRA(rank=4, alpha=8), **options}
        return AudioText(**given).load()

    return adapter


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_gives_transformers_logits(alm: Callable[..., Any], kind: str) -> None:
    """Mixed rows, one or two sounds or none, left padding, prompts shared by rows."""
    adapter = alm(kind)
    assert adapter.network.split
    got = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    want = plain(adapter, PROMPTS, ROWS, TOKENS, MASK)
    assert want.std() > 0.1 and (got - want).abs().max() <= 2e-5 * want.abs().max()
    deaf = [Prompt(p.text, {name: sound(7) for name in p.media}) for p in PROMPTS]
    assert (judged(adapter, deaf, ROWS, TOKENS, MASK) - got)[[0, 1, 3]].abs().max() > 1e-3  # the sounds are heard
    adapter.share_prompts = False
    assert isinstance(adapter, TokenAdapter)
    whole = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    assert (whole - want).abs().max() <= 2e-5 * want.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_heard_once_for_all_that_is_said_of_it(alm: Callable[..., Any], kind: str) -> None:
    adapter, heard = alm(kind), []
    adapter.network.model.base_model.audio_tower.register_forward_hook(lambda *_: heard.append(1))
    policy = Tokens(adapter, max_new_tokens=4)
    rollout = policy.sample([p for p in PROMPTS for _ in range(3)], torch.Generator().manual_seed(0))
    assert len(heard) == 1  # one pass for the four sounds of twelve rows
    assert (rollout.step_logp - policy.step_log_prob(rollout)).abs().max() <= 1e-5
    assert len(heard) == 2
    alone = policy.sample(PROMPTS[3:], torch.Generator(), seeds=rollout.trajectory["seed"][9:10])
    count = int(alone.mask.sum())
    assert torch.equal(alone.trajectory["tokens"][0, :count], rollout.trajectory["tokens"][9, :count])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_generate(alm: Callable[..., Any], kind: str) -> None:
    adapter = alm(kind)
    made = Tokens(adapter, max_new_tokens=5).generate(PROMPTS[2:3], torch.Generator())
    given = adapter.encode(PROMPTS[2:3])[0]
    given = {name: value[None] if value.dim() == 1 else value for name, value in given.items()}
    want = adapter.network.model.generate(**given, do_sample=False, max_new_tokens=5)[0, given["input_ids"].shape[1] :]
    got = made.trajectory["tokens"][0][made.mask[0]]
    assert got.tolist() == want[: len(got)].tolist() and (want[len(got) :] == adapter.pad_id).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_is_of_the_language_model_and_plain_peft_loads_it(
    alm: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    import transformers
    from peft import PeftModel

    adapter = alm(kind)
    names = list(adapter.trainable())
    assert names and all("language_model" in name for name in names)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.normal_(std=0.1)
    now = judged(adapter, PROMPTS, ROWS, TOKENS, MASK).detach()
    with adapter.reference(), torch.no_grad():
        assert (judged(adapter, PROMPTS, ROWS, TOKENS, MASK) - now).abs().max() > 1e-2
    adapter.save(tmp_path)
    base = getattr(transformers, model_class(Path(adapter.model))).from_pretrained(adapter.model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    given = adapter.encode(PROMPTS[:1])[0]
    given = {name: value[None] if value.dim() == 1 else value for name, value in given.items()}
    with torch.no_grad():
        assert torch.allclose(loaded(**given).logits[0, -1], now[0, 0], atol=1e-4)


def test_a_whole_model_is_saved_with_its_processor(alm: Callable[..., Any], tmp_path: Path) -> None:
    adapter = alm(train="full", gradient_checkpointing=True)
    assert any("audio_tower" in name for name in adapter.trainable())
    judged(adapter, PROMPTS, ROWS, TOKENS, MASK).square().mean().backward()
    heard = {n: p.grad for n, p in adapter.trainable().items() if "multi_modal_projector" in n}
    assert heard and all(g is not None and g.abs().max() > 0 for g in heard.values())
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight += 0.01
        now = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    adapter.save(tmp_path)
    again = AudioText(str(tmp_path), device="cpu", train="full").load()
    assert again.looking.chat and torch.allclose(judged(again, PROMPTS, ROWS, TOKENS, MASK), now, atol=1e-5)


def test_the_thinker_of_a_published_checkpoint_is_found_beside_its_voice(
    alm: Callable[..., Any], folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    whole = shutil.copytree(folder("qwen2_5_omni"), tmp_path / "whole")
    thinker = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": thinker}))
    weights = load_file(whole / "model.safetensors")
    named = {f"thinker.{name.replace('model.language_model.', 'model.')}": value for name, value in weights.items()}
    save_file(named | {"talker.model.norm.weight": torch.zeros(2)}, whole / "model.safetensors", {"format": "pt"})
    adapter, plain_one = AudioText(str(whole), device="cpu", train="frozen").load(), alm("qwen2_5_omni")
    assert not adapter.trainable()
    found = judged(adapter, PROMPTS, ROWS, TOKENS, MASK)
    assert torch.equal(found, judged(plain_one, PROMPTS, ROWS, TOKENS, MASK))


def test_sounds_are_resampled_mixed_and_cut_at_their_mask(alm: Callable[..., Any]) -> None:
    adapter = alm()
    one = sound(4, 0.5)
    wide = Audio(one.samples.expand(1, 2, -1), RATE)
    masked = Audio(torch.cat([one.samples, torch.ones(1, 1, 800)], 2), RATE, torch.arange(8800)[None] < 8000)
    features = [adapter.encode([Prompt("a", {"audio": s})])[0]["input_features"] for s in (one, wide, masked)]
    assert torch.equal(features[0], features[1]) and torch.equal(features[0], features[2])
    fast = sound(1, 0.5, rate=32_000)
    near = adapter.encode([Prompt("a", {"audio": fast})])[0]["input_features"]
    slow = adapter.encode([Prompt("a", {"audio": Audio(fast.samples[..., ::2], RATE)})])[0]["input_features"]
    assert near.shape == slow.shape and (near - slow).abs().mean() < 0.2


def test_prompts_are_processed_once(alm: Callable[..., Any]) -> None:
    adapter = alm()
    first = adapter.encode(PROMPTS)
    again = adapter.encode([Prompt(p.text, {n: s[torch.tensor([0])] for n, s in p.media.items()}) for p in PROMPTS])
    assert all(a is b for a, b in zip(first, again, strict=True))
    faster = Audio(PROMPTS[0].media["audio"].samples, 8000)
    assert adapter.encode([Prompt(PROMPTS[0].text, {"audio": faster})])[0] is not first[0]


def test_without_a_template_sounds_stand_first(alm: Callable[..., Any]) -> None:
    adapter = alm(chat=False)
    said = adapter.texts.tokenizer.decode(adapter.encode(PROMPTS[3:])[0]["input_ids"])
    assert said.count("<|audio_bos|>") == said.count("<|audio_eos|>") == 2 and said.rstrip().endswith("say")


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_inside_a_conversation_stand_at_their_places(alm: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    for name, value in (("a", sound(1)), ("b", sound(3, 0.2))):
        write_audio(value.samples[0], RATE, tmp_path / f"{name}.wav")
    inside = {"data": base64.b64encode((tmp_path / "b.wav").read_bytes()).decode(), "format": "wav"}
    word, place = {"type": "text", "text": "say"}, {"type": "audio"}
    asks = [
        user([{"type": "audio", "audio": "a.wav"}, word]),
        assistant("red cube"),
        user([word, {"type": "input_audio", "input_audio": inside}]),
    ]
    file = jsonl(tmp_path / "a.jsonl", {"messages": [*asks, assistant("two dogs")]})
    (example,) = Conversations(file).training_items()
    adapter = alm(kind)
    (ours,) = adapter.encode([example.prompt])
    processor = adapter.looking.processor
    parts = [user([place, word]), assistant([{"type": "text", "text": "red cube"}]), user([word, place])]
    text = processor.apply_chat_template(parts, tokenize=False, add_generation_prompt=True)
    waves = [read_audio(tmp_path / f"{name}.wav")[0][0].numpy() for name in "ab"]
    theirs = processor(text=[text], audio=waves, return_tensors="pt", audio_kwargs={"sampling_rate": RATE})
    assert ours["input_ids"].tolist() == theirs["input_ids"][0].tolist()
    torch.testing.assert_close(ours["input_features"], theirs["input_features"])


def test_sounds_inside_a_conversation_are_refused_by_models_that_read_none(tmp_path: Path) -> None:
    write_audio(sound(1).samples[0], RATE, tmp_path / "a.wav")
    asks = [user([{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "say"}])]
    (prompt,) = Prompts(jsonl(tmp_path / "a.jsonl", {"prompt": asks})).training_items()
    reads = CausalLM(str(write_tiny_lm(tmp_path / "lm", "llama")), device="cpu").reader()
    with pytest.raises(CapabilityError, match=r"a\.jsonl:1: the prompt carries media \(audio\) and 'causal_lm'"):
        reads.prompt(prompt)
    seeing = ImageText(str(write_tiny_vlm(tmp_path / "vlm", "llava", chat=True)), device="cpu").reader()
    talk = replace(prompt, messages=[*asks, assistant("a"), user("say")])
    with pytest.raises(DataError, match=r"has a place for a sound, and this model reads pictures; take one that reads"):
        seeing.prompt(talk)


def test_what_cannot_be_had_is_said(alm: Callable[..., Any], tmp_path: Path) -> None:
    adapter = alm()
    with pytest.raises(CapabilityError, match=r"media.image: audio_text hears an Audio of one row and this is Tensor"):
        adapter.encode([Prompt("a", {"image": torch.zeros(3, 8, 8)})])
    with pytest.raises(DataError, match=r"media.audio: a sound of 1\.5 s, and this model hears 1 s; cut it"):
        adapter.encode([Prompt("a", {"audio": sound(1, 1.5)})])
    for bad in (Audio(torch.zeros(1, 1, 0), RATE), Audio(torch.full((1, 1, 9), float("nan")), RATE)):
        with pytest.raises(DataError, match=r"media.audio: a sound of \d samples, or with samples that are not finite"):
            adapter.encode([Prompt("a", {"audio": bad})])
    adapter.share_prompts = False
    tokens = TOKENS.clone()
    tokens[0, 1] = place = adapter.network.model.config.audio_token_id
    with pytest.raises(CapabilityError, match=f"a completion holds token {place}, which stands for a sound, and would"):
        judged(adapter, PROMPTS, ROWS, tokens, MASK)
    with pytest.raises(CheckpointError, match="no model of AutoModelForMultimodalLM could be built"):
        AudioText(str(write_tiny_lm(tmp_path / "lm", "llama")), device="cpu").load()
