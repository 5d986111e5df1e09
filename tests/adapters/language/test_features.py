"""Features of reward models: what the head reads, at the token that the score is of and at every other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.protocols import FeaturePolicy, FeatureScorePolicy, StateAdapter
from mmalign.core.types import Prompt
from mmalign.policies.scorer import Scorer
from mmalign.policies.tokens import Tokens
from tests.adapters.language.reward_models import ASKED, SAID, moved, reward_model, scores
from tests.adapters.language.tiny_lm import word_tokenizer
from tests.adapters.language.tiny_vlm import write_tiny_vlm


def head_of(adapter: Any) -> Any:
    """The trained linear head of an adapter."""
    head = adapter.network.model.get_submodule(adapter.network.place)
    return head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head


@pytest.mark.parametrize(("kind", "train"), [("llama", "full"), ("llama", "lora"), ("gpt2", "head")])
def test_the_head_reads_the_features(kind: str, train: str, lm_folder: Callable[..., Path]) -> None:
    adapter = moved(reward_model(lm_folder(kind, chat=kind == "gpt2"), train=train))
    assert isinstance(cast(object, adapter), StateAdapter)
    inputs = adapter.read(ASKED, SAID)
    value, features = adapter.scored_features(inputs)
    torch.testing.assert_close(value, scores(adapter))
    torch.testing.assert_close(head_of(adapter)(features)[:, 0], value)
    again, states, mask = adapter.scored_states(inputs)
    torch.testing.assert_close(again, value)
    last = torch.stack([row[where.nonzero()[-1, 0]] for row, where in zip(states, mask, strict=True)])
    torch.testing.assert_close(last, features)
    if train != "head":
        features.square().sum().backward()
        names = {name for name, p in adapter.trainable().items() if p.grad is not None and p.grad.abs().sum() > 0}
        assert names and not any(adapter.network.place in name for name in names)
        assert all(p.grad is not None for p in adapter.trainable().values())  # 0 of the head: processes wait for it


def test_states_are_of_the_output_alone_and_never_look_ahead(lm_folder: Callable[..., Path]) -> None:
    for chat in (False, True):
        adapter = reward_model(lm_folder("llama", chat=chat))
        texts = adapter.inputs.texts
        with torch.no_grad():
            _, states, mask = adapter.scored_states(adapter.read(ASKED, SAID))
            _, other, _ = adapter.scored_states(adapter.read(ASKED, [f"{text} cube" for text in SAID]))
        written = [
            len(texts.answered_ids(p, said)) - len(texts.prompt_ids(p)) for p, said in zip(ASKED, SAID, strict=True)
        ]
        assert mask.sum(1).tolist() == written
        same = [len(texts.prompt_ids(p)) + len(said.split()) for p, said in zip(ASKED, SAID, strict=True)]
        for row, count in enumerate(same):
            torch.testing.assert_close(states[row, :count], other[row, :count], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(states[0, same[0]], other[0, same[0]])


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_models_that_look_have_features(kind: str, tmp_path: Path) -> None:
    adapter = moved(reward_model(write_tiny_vlm(tmp_path / kind, kind), train="full"))
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = [Prompt("a b", {"image": pictures[0]}), Prompt("red"), Prompt("a b", {"image": pictures[1]})]
    with torch.no_grad():
        value, features = adapter.scored_features(adapter.read(asked, ["good", "a", "good"]))
        _, states, mask = adapter.scored_states(adapter.read(asked, ["good", "a", "good"]))
    torch.testing.assert_close(head_of(adapter)(features)[:, 0], value)
    assert not torch.allclose(features[0], features[2])
    torch.testing.assert_close(states[:, -1], features)  # padded on the left
    assert bool(mask[:, -1].all()) and int(mask[1].sum()) < int(mask[0].sum())


def test_encoders_have_features_and_no_states(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    words = word_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(**shape, vocab_size=len(words), pad_token_id=0)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    adapter = reward_model(tmp_path, train="full")
    value, features = adapter.scored_features(adapter.read(ASKED, SAID))
    assert features.shape == (3, 32)
    torch.testing.assert_close(head_of(adapter)(features)[:, 0], value)
    with pytest.raises(CapabilityError, match="makes one vector of all tokens before its head"):
        adapter.scored_states(adapter.read(ASKED, SAID))


def test_policies_offer_them_row_by_row(lm_folder: Callable[..., Path]) -> None:
    from mmalign.adapters import load_adapter

    scorer = Scorer(reward_model(lm_folder("llama")), rows=2)
    assert isinstance(scorer, FeatureScorePolicy)
    whole = scorer.features(scorer.observe(ASKED, SAID))
    alone = torch.cat([scorer.features(scorer.observe([p], [s])) for p, s in zip(ASKED, SAID, strict=True)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)

    folder = lm_folder("llama")
    policy: Any = Tokens(load_adapter("causal_lm", model=str(folder), device="cpu", train="full"), max_new_tokens=5)
    assert isinstance(cast(object, policy), FeaturePolicy)
    rollout = policy.observe(ASKED, SAID)
    found = policy.features(rollout)
    for row, (prompt, said) in enumerate(zip(ASKED, SAID, strict=True)):
        ids = [*policy.adapter.texts.prompt_ids(prompt), *policy.adapter.texts.completion_ids(said)]
        before = len(policy.adapter.texts.prompt_ids(prompt))
        with torch.no_grad():
            states = policy.adapter.network.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(found[row].detach(), states[before - 1 : -1].mean(0), atol=1e-5, rtol=1e-4)
    found.sum().backward()
    assert all(p.grad is not None for p in policy.adapter.trainable().values())


def test_a_sampler_keeps_them_where_asked(lm_folder: Callable[..., Path]) -> None:
    from mmalign.adapters import load_adapter

    adapter = load_adapter("causal_lm", model=str(lm_folder("llama")), device="cpu", train="frozen")
    policy = Tokens(adapter, max_new_tokens=5, keep_features=True)
    rollout = policy.sample(ASKED, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(rollout.trajectory["features"], policy.features(rollout))
    assert "features" not in Tokens(adapter, max_new_tokens=5).sample(ASKED, torch.Generator()).trajectory
