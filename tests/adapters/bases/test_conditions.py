"""Prompts are encoded once, row by row the same whatever shares the batch, and nothing of a prompt is dropped."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmalign.adapters.bases.conditions import Conditions
from mmalign.core.errors import CapabilityError
from mmalign.core.types import Prompt

FAMILIES = ["sd", "sdxl", "sd3"]


def counted(conditions):
    """Count the texts that reach the encoders."""
    calls, encode = [], conditions.encode_text

    def noted(text):
        calls.append(text)
        return encode(text)

    conditions.encode_text = noted
    return calls


@pytest.mark.parametrize("name", FAMILIES)
def test_the_encoders_see_each_text_once(name, make):
    adapter = make(name)
    calls = counted(adapter.loaded.conditions)
    first = adapter.encode([Prompt("a"), Prompt("b"), Prompt("a")])
    again = adapter.encode([Prompt("b"), Prompt("a")])
    assert calls == ["a", "b"]
    assert (adapter.loaded.conditions.hits, adapter.loaded.conditions.misses) == (2, 2)
    for key, value in first.items():
        assert torch.equal(value[0], value[2])
        assert torch.equal(again[key], value[[1, 0]])
        assert not value.requires_grad
    different = next(iter(first.values()))
    assert not torch.equal(different[0], different[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_conditions_are_the_pipelines_own(name, make, pipeline):
    adapter, texts = make(name), ["a red cube", "b"]
    said = pipeline(name).encode_prompt(
        prompt=texts,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        **({"prompt_2": None, "prompt_3": None} if name == "sd3" else {}),
    )
    ours, negative = adapter.encode([Prompt(t) for t in texts]), adapter.unconditional(2)
    torch.testing.assert_close(ours["encoder_hidden_states"], said[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(negative["encoder_hidden_states"], said[1], rtol=0, atol=1e-5)
    if name != "sd":
        pooled = "text_embeds" if name == "sdxl" else "pooled_projections"
        torch.testing.assert_close(ours[pooled], said[2], rtol=0, atol=1e-5)
        torch.testing.assert_close(negative[pooled], said[3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_unconditional_and_conditional_rows_concatenate(name, make):
    adapter = make(name)
    one, other = adapter.encode([Prompt("a"), Prompt("b")]), adapter.unconditional(3)
    assert {key: torch.cat([one[key], value]).shape[0] for key, value in other.items()} == dict.fromkeys(one, 5)


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), max_size=6), st.integers(1, 4))
def test_any_order_and_capacity_gives_each_row_its_own_condition(calls, capacity):
    kept = Conditions(
        encode_text=lambda text: {"code": torch.tensor([[float(ord(text))]])},
        encode_negative=dict,
        encoders=[],
        device=torch.device("cpu"),
        offload=False,
        capacity=capacity,
    )
    for texts in calls:
        assert kept(texts)["code"].flatten().tolist() == [float(ord(text)) for text in texts]
        assert len(kept._kept) <= capacity
    assert kept.hits + kept.misses == sum(len(set(texts)) for texts in calls)


def test_the_least_recently_used_text_leaves_first():
    seen = []

    def noted(text):
        seen.append(text)
        return {"x": torch.zeros(1, 1)}

    kept = Conditions(encode_text=noted, encode_negative=dict, encoders=[], device=torch.device("cpu"), capacity=2)
    for text in ["a", "b", "a", "c", "a", "b"]:
        kept([text])
    assert seen == ["a", "b", "c", "b"]


def test_offloaded_encoders_come_back_even_when_encoding_fails(monkeypatch):
    encoder, moves = torch.nn.Linear(1, 1), []
    monkeypatch.setattr(encoder, "to", lambda device: moves.append(str(device)))

    def fail(text):
        raise RuntimeError(text)

    kept = Conditions(
        encode_text=fail, encode_negative=dict, encoders=[encoder], device=torch.device("cpu", 0), offload=True
    )
    with pytest.raises(RuntimeError, match=r"boom"):
        kept(["boom"])
    assert moves == ["cpu:0", "cpu"]


def test_media_that_would_be_ignored_is_refused(make):
    with pytest.raises(CapabilityError, match=r"row 1: the prompt carries media \(image\) and 'sd3' reads text only"):
        make("sd3").encode([Prompt("a"), Prompt("b", media={"image": torch.zeros(3, 4, 4)})])


def test_sd3_can_leave_t5_out(make):
    whole, without = make("sd3"), make("sd3", text_encoder_3=False)
    assert without.loaded.pipeline.text_encoder_3 is None
    key = "encoder_hidden_states"
    condition = without.encode([Prompt("a")])[key]
    assert condition[:, 24:].abs().max() == 0
    assert torch.equal(condition[:, :24], whole.encode([Prompt("a")])[key][:, :24])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_past_clips_context_is_said_and_counted(name, make):
    from mmalign.core.cuts import counting_cuts

    adapter = make(name)
    long = "a red cube and " * 20
    with counting_cuts() as cuts, pytest.warns(UserWarning, match=rf"{name}: the last \d+ of \d+ tokens .* CLIP reads"):
        adapter.encode([Prompt(long), Prompt("a red cube")])
    assert {text for _, text in cuts.texts} == {long}
    alike = adapter.encode([Prompt(long), Prompt(long + "blue")])["encoder_hidden_states"][
        :, : 24 if name == "sd3" else None
    ]
    assert torch.equal(alike[0], alike[1])  # which is why it is said
