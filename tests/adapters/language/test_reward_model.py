"""Reward models on tiny checkpoints of real classes: plain transformers and peft agree, padding does not matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.language._classifier import HeadOptions
from mmalign.adapters.language._score_heads import IdealPoint, PromptPoint, fresh_head
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, DataError
from mmalign.core.types import Prompt
from tests.adapters.language.reward_models import ASKED, SAID, moved, reward_model, scores
from tests.adapters.language.tiny_lm import word_tokenizer
from tests.adapters.language.tiny_vlm import write_tiny_vlm


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_linear_head_is_plain_transformers(kind: str, lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    adapter = moved(reward_model(lm_folder(kind, chat=True), train="full"))
    adapter.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [
        [{"role": "user", "content": p.text}, {"role": "assistant", "content": said}]
        for p, said in zip(ASKED, SAID, strict=True)
    ]
    texts = tokenizer.apply_chat_template(turns, tokenize=False)
    for side in ("left", "right"):
        batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side=side, return_tensors="pt")
        positions = {"position_ids": (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)}
        given = {k: batch[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            torch.testing.assert_close(model(**given, **positions).logits[:, 0], scores(adapter), atol=1e-5, rtol=0)
    again = reward_model(tmp_path, train="head")
    torch.testing.assert_close(scores(again), scores(adapter), atol=1e-6, rtol=0)


def test_a_lora_is_plain_peft_with_its_head(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    adapter = moved(reward_model(lm_folder("llama")))
    assert {name.partition(".")[0] for name in adapter.trainable()} == {"model", "score"}
    adapter.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    model = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    for prompt, said, want in zip(ASKED, SAID, scores(adapter), strict=True):
        ids = adapter.read([prompt], [said])[0]["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids[None]).logits[0, 0], want, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores(reward_model(tmp_path, train="head")), scores(adapter), atol=1e-6, rtol=0)
    further = reward_model(tmp_path)  # goes on from the LoRA
    assert len(further.trainable()) == len(adapter.trainable())
    moved(further)
    assert not torch.allclose(scores(further), scores(adapter))
    with further.reference():
        torch.testing.assert_close(scores(further), scores(adapter), atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="is a LoRA, which train: full would not keep; set train: lora or head"):
        reward_model(tmp_path, train="full")


def test_a_lora_may_be_moved_with_its_base(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(lm_folder("llama"), before / "base")
    adapter = moved(reward_model(before / "base"))
    adapter.save(before / "lora")
    before.rename(after)
    with pytest.warns(
        UserWarning, match=r"adapter_config.json: the base model is no longer .*before/base; .*after/base"
    ):
        again = reward_model(after / "lora")
    torch.testing.assert_close(scores(again), scores(adapter), atol=1e-6, rtol=0)
    (after / "base").rename(tmp_path / "away")
    with pytest.raises(
        CheckpointError, match=r"before/base is not there; write as its \"base_model_name_or_path\" where"
    ):
        reward_model(after / "lora")
    adapter.save(after / "lora")  # a base that is gone ends no run


@pytest.mark.parametrize("kind", ["mlp2", "ideal_point"])
@pytest.mark.parametrize("train", ["lora", "full", "head"])
def test_other_heads_come_back_as_they_were(
    kind: str, train: str, lm_folder: Callable[..., Path], tmp_path: Path
) -> None:
    head: dict[str, Any] = {"kind": kind, "width": 6} | ({"users": ["ann", "bo"]} if kind == "ideal_point" else {})
    adapter = moved(reward_model(lm_folder("llama"), train=train, head=head))
    asked = [Prompt(p.text, meta={"user": user}) for p, user in zip(ASKED, ("ann", "bo", "who"), strict=True)]
    found = scores(adapter, asked)
    adapter.save(tmp_path)
    again = reward_model(tmp_path, train="head")
    assert again.head == HeadOptions(**head)
    torch.testing.assert_close(scores(again, asked), found, atol=1e-6, rtol=0)
    kept = {name: p.detach().clone() for name, p in adapter.trainable().items()}
    moved(adapter).restore(tmp_path)
    assert all(torch.equal(p, kept[name]) for name, p in adapter.trainable().items())
    if train == "head":
        assert all(name.startswith("score.") for name in kept)
    if kind == "ideal_point":
        mean = (scores(adapter, [Prompt("red", meta={"user": u}) for u in ("ann", "bo")], ["a", "a"])).mean()
        torch.testing.assert_close(scores(adapter, [Prompt("red")], ["a"])[0], mean)
    with pytest.raises(ConfigError, match=r"head: .* was saved with HeadOptions\(kind='"):
        reward_model(tmp_path, head={"kind": "linear", "seed": 3}, train="head")


def test_ideal_points_hold_opposite_tastes_that_one_score_cannot() -> None:
    """PAL's toy: half the users like what the others dislike."""
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn(700, 8, generator=rng) for _ in range(2))
    user = torch.randint(0, 4, (700,), generator=rng)
    likes = (one[:, 0] > other[:, 0]) ^ (user % 2 == 1)  # users 0 and 2 want much of feature 0, 1 and 3 little
    found = {}
    heads = (HeadOptions("ideal_point", width=4, users=["a", "b", "c", "d"]), HeadOptions("mlp2", width=4))
    for options in heads:
        head: Any = fresh_head(options, 8, False)
        update = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(100):
            lead = head.read(head(one[:500]), user[:500]) - head.read(head(other[:500]), user[:500])
            loss = -torch.nn.functional.logsigmoid(torch.where(likes[:500], lead, -lead)).mean()
            update.zero_grad()
            loss.backward()
            update.step()
        lead = head.read(head(one[500:]), user[500:]) - head.read(head(other[500:]), user[500:])
        found[options.kind] = float(((lead > 0) == likes[500:]).float().mean())
    assert found["ideal_point"] > 0.88 and found["mlp2"] < 0.65
    far = IdealPoint(8, 4, 2, 1)
    assert (far.read(far(one[:5]), torch.zeros(5, dtype=torch.long)) <= 0).all()


def test_a_new_user_is_fitted_and_nothing_else_moves(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    """The new user starts as the mean mixture of prototypes; known users' scores stay to the bit, also when saved."""
    head: dict[str, Any] = {"kind": "ideal_point", "width": 6, "users": ["ann", "bo"]}
    adapter = moved(reward_model(lm_folder("llama"), train="full", head=head))
    adapter.save(tmp_path / "known")
    asked = [Prompt("red", meta={"user": user}) for user in ("ann", "bo", "cy")]
    known = scores(adapter, asked[:2], ["a", "a"])
    with pytest.raises(ConfigError, match=r"train: user: there is no new user"):
        reward_model(tmp_path / "known", train="user")
    again = reward_model(tmp_path / "known", train="user", head=head | {"users": ["ann", "bo", "cy"]})
    ((name, weight),) = again.trainable().items()
    assert name.endswith("newcomers.weight") and weight.tolist() == [[0.0, 0.0]]
    place: IdealPoint = again.network.model.get_submodule(again.network.place)
    even = -torch.linalg.vector_norm(pooled(again, asked[2]) - place.prototypes.mean(0), dim=-1)
    torch.testing.assert_close(scores(again, asked[2:], ["a"]), even, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores(again, asked[:2], ["a", "a"]), known, atol=1e-6, rtol=0)
    moved(again)
    assert torch.equal(
        scores(again, asked[:2], ["a", "a"]), scores(reward_model(tmp_path / "known"), asked[:2], ["a", "a"])
    )
    again.save(tmp_path / "more")
    more = reward_model(tmp_path / "more")
    assert more.head.users == ["ann", "bo", "cy"]
    torch.testing.assert_close(scores(more, asked, ["a"] * 3), scores(again, asked, ["a"] * 3), atol=1e-6, rtol=0)
    kept = weight.detach().clone()
    moved(again).restore(tmp_path / "more")
    assert torch.equal(weight, kept)
    one_more = reward_model(tmp_path / "more", train="user", head=head | {"users": ["ann", "bo", "cy", "dee"]})
    torch.testing.assert_close(scores(one_more, asked, ["a"] * 3), scores(again, asked, ["a"] * 3), atol=1e-6, rtol=0)
    for users in (["bo", "ann", "cy"], ["ann", "cy"]):
        with pytest.raises(ConfigError, match=r"head: .* was saved with HeadOptions"):
            reward_model(tmp_path / "known", train="user", head=head | {"users": users})


def test_points_of_the_prompt_by_hand(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    """PAL-B from the network's own states: the output's last token against what its prompt's last token asks for."""
    head: dict[str, Any] = {
        "kind": "ideal_point",
        "points": "prompt",
        "width": 5,
        "prototypes": 3,
        "users": ["ann", "bo"],
    }
    adapter = moved(reward_model(lm_folder("llama"), train="full", head=head))
    asked = [Prompt("red", meta={"user": "ann"}), Prompt("a b c", meta={"user": "bo"}), Prompt("red")]
    said = ["a", "good bad", "a"]
    place: PromptPoint = adapter.network.model.get_submodule(adapter.network.place)
    with torch.no_grad():
        rows = adapter.read(asked, said)
        _, states, _ = adapter.scored_states(rows)
        lengths = [len(row["input_ids"]) for row in rows]
        f = place.place(torch.stack([states[i, n - 1] for i, n in enumerate(lengths)]))
        g = place.wanted(torch.stack([states[i, int(row["begins"]) - 1] for i, row in enumerate(rows)])).view(3, 3, 5)
        w = place.mixture.softmax(-1)
        each = torch.stack([torch.cosine_similarity(f, (w[u, :, None] * g).sum(1)) for u in (0, 1)], 1)
        wanted = torch.stack([each[0, 0], each[1, 1], each[2].mean()]) * place.log_scale.exp()
    torch.testing.assert_close(scores(adapter, asked, said), wanted, atol=1e-4, rtol=1e-4)
    adapter.save(tmp_path / "kept")
    torch.testing.assert_close(scores(reward_model(tmp_path / "kept"), asked, said), wanted, atol=1e-4, rtol=1e-4)
    more = reward_model(tmp_path / "kept", train="user", head=head | {"users": ["ann", "bo", "cy"]})
    torch.testing.assert_close(scores(more, asked[:2], said[:2]), wanted[:2], atol=1e-4, rtol=1e-4)
    lora = moved(reward_model(lm_folder("llama"), train="lora", head=head))
    assert not torch.allclose(scores(lora, [asked[0]], ["a"]), scores(lora, [asked[2]], ["a"]))
    with pytest.raises(ConfigError, match=r"head.points: prompt is of ideal_point, not of a mlp2 head"):
        reward_model(lm_folder("llama"), head={"kind": "mlp2", "points": "prompt"})


def pooled(adapter: Any, prompt: Prompt) -> torch.Tensor:
    """Where the head puts one row, (1, K)."""
    read = adapter.read([prompt], ["a"])
    inputs = [{k: v for k, v in row.items() if k not in ("user", "begins")} for row in read]
    with torch.no_grad():
        return adapter.network.model(**adapter.inputs.batch(inputs, torch.device("cpu"))).logits.float()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "bloom", "cohere"])
def test_a_row_does_not_know_its_batch_even_where_padding_ends_texts(
    kind: str, lm_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = lm_folder(kind)
    for name in ("config.json", "tokenizer_config.json"):  # padding with the token that ends texts, as many models do
        facts = json.loads((folder / name).read_text())
        key, end = ("pad_token_id", "eos_token_id") if name == "config.json" else ("pad_token", "eos_token")
        facts[key] = facts[end]
        (tmp_path / name).write_text(json.dumps(facts))
    for file in folder.iterdir():
        if not (tmp_path / file.name).exists():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for place in (folder, tmp_path):
        adapter = reward_model(place)
        alone = torch.cat([scores(adapter, [p], [s]) for p, s in zip(ASKED, SAID, strict=True)])
        torch.testing.assert_close(scores(adapter), alone, atol=1e-5, rtol=0)
        assert len({round(v, 4) for v in alone.tolist()}) == 3
        ended = scores(adapter, [Prompt("a")], ["b <eos> red"]), scores(adapter, [Prompt("a")], ["b"])
        assert not torch.allclose(*ended)  # an end inside the text is no end


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_models_that_look_score_texts_and_pictures(kind: str, tmp_path: Path) -> None:
    folder = write_tiny_vlm(tmp_path / kind, kind, chat=kind == "llava")
    rng = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 16, 16, generator=rng)
    asked = [Prompt("a b", {"image": pictures[0]}), Prompt("red"), Prompt("a b", {"image": pictures[1]})]
    adapter = moved(reward_model(folder, train="full", head={"kind": "mlp2"}))
    found = scores(adapter, asked, ["good", "good", "good"])
    alone = torch.cat([scores(adapter, [p], ["good"]) for p in asked])
    torch.testing.assert_close(found, alone, atol=2e-5, rtol=0)
    assert abs(found[0] - found[2]) > 1e-4  # it saw the pictures
    adapter.save(tmp_path / "kept")
    torch.testing.assert_close(scores(reward_model(tmp_path / "kept"), asked, ["good"] * 3), found, atol=1e-5, rtol=0)
    painter = reward_model(folder, judges="image")
    assert painter.modality == "image" and not any("vis" in name for name in painter.trainable())
    value = scores(painter, [Prompt("red")] * 3, pictures)
    assert value.shape == (3,) and len(set(value.tolist())) == 3


def test_encoders_read_prompt_and_answer_as_a_pair(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

    words = word_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"vocab_size": len(words), "pad_token_id": 0, "initializer_range": 0.3, "max_position_embeddings": 16}
    BertForMaskedLM(BertConfig(**shape, **more)).save_pretrained(tmp_path / "bert")
    words.save_pretrained(tmp_path / "bert")
    adapter = moved(reward_model(tmp_path / "bert", train="full"))
    alone = torch.cat([scores(adapter, [p], [s]) for p, s in zip(ASKED, SAID, strict=True)])
    torch.testing.assert_close(scores(adapter), alone, atol=1e-5, rtol=0)
    adapter.save(tmp_path / "kept")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept").eval()
    given = adapter.inputs.batch([adapter.inputs.row(ASKED[1], SAID[1])], "cpu")
    with torch.no_grad():
        torch.testing.assert_close(model(**given).logits[:, 0], alone[1:2], atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="is 21 tokens, longer than the model's context of 16; shorten it, or leave"):
        scores(adapter, [Prompt("a")], ["b " * 20])


def test_scores_keep_their_digits_in_bfloat16(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    adapter = reward_model(lm_folder("llama"), dtype="bf16")
    found = scores(adapter)
    assert found.dtype == torch.float32 and not torch.equal(found, found.bfloat16().float())
    exact = scores(reward_model(lm_folder("llama")))
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.1)
    adapter.save(tmp_path)
    assert torch.equal(scores(reward_model(tmp_path, train="head", dtype="bf16")), found)


def test_faults_are_said(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = lm_folder("llama")
    five = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5)
    five.save_pretrained(tmp_path / "five")
    with pytest.raises(CheckpointError, match="a classifier with 5 labels; a reward model has one"):
        reward_model(tmp_path / "five")
    with pytest.raises(ConfigError, match="judges: image, but LlamaForSequenceClassification reads no pictures"):
        reward_model(folder, judges="image")
    with pytest.raises(ConfigError, match=r"dropout: 0\.1, but what a policy says of one output"):
        reward_model(folder, lora={"dropout": 0.1})
    with pytest.raises(ConfigError) as caught:
        HeadOptions(users=["a", "a"], prototypes=0, width=-1)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "head.width", "head.prototypes", "head.users", "head.users",
    ]  # fmt: skip
    with pytest.raises(CapabilityError, match=r"a prompt carries media \(image\), and this reward model reads text"):
        scores(reward_model(folder), [Prompt("a", {"image": torch.zeros(3, 4, 4)})], ["b"])
    reward_model(folder, train="full", head={"kind": "mlp2"}).save(tmp_path / "mlp2")
    (tmp_path / "mlp2" / "reward_model.json").unlink()
    with pytest.raises(CheckpointError, match=r"its head is not the linear one that reward_model.json or adapter.head"):
        reward_model(tmp_path / "mlp2")
