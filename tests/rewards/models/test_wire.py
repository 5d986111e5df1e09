"""Rows and scores travel as they are: every bit by tensors, 8 and 16 bits by files; what is no message is refused."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest
import torch

from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.rewards.models.wire import Limits, Malformed, TooLarge
from mmalign.rewards.models.wire_in import request_in, rollout_of, scores_in
from mmalign.rewards.models.wire_out import message_of, scores_out

PICTURES = torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(0))
SOUNDS = Audio(
    torch.rand(3, 2, 50, generator=torch.Generator().manual_seed(1)) * 2 - 1,
    16000,
    torch.arange(50) < torch.tensor([50, 20, 35])[:, None],
)
OUTPUTS = {
    "texts": ["", "two\nlines", "Ünïcode 😀"],
    "pictures": PICTURES,
    "half pictures": PICTURES.bfloat16(),
    "a view of pictures": PICTURES.repeat(1, 1, 1, 2)[:, :, :, ::2],
    "sounds": SOUNDS,
    "unmasked sounds": Audio(SOUNDS.samples, 8000),
}


def rollout(output: Any) -> Rollout:
    media = {"image": PICTURES[1], "audio": SOUNDS[1:2]}
    facts = {"answer": 3, "near": [1.5, None, True], "of": {"deep": "x"}}
    first = Prompt("", media, facts)
    messages = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"})
    second = Prompt("hello", messages=messages, tools=({"name": "f"},))
    made = Rollout.of([first, first, second], output)
    made.mask, made.truncated = torch.tensor([[True, False], [True, True], [False, False]]), torch.tensor([1, 0, 1]) > 0
    return made


def sent(made: Rollout, wire: Any = "safetensors", limits: Limits = Limits()) -> Rollout:  # noqa: B008
    return rollout_of(request_in(json.dumps(message_of(made, "r", wire)).encode()), limits)


def same(got: Any, want: Any) -> bool:
    if isinstance(want, torch.Tensor):
        return bool(got.dtype == want.dtype and torch.equal(got, want))
    if isinstance(want, Audio):
        return got.rate == want.rate and same(got.samples, want.samples) and same(got.mask, want.mask)
    return bool(got == want)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_tensors_are_exact(kind: str) -> None:
    want = rollout(OUTPUTS[kind])
    got = sent(want)
    assert same(got.output, want.output) and got.group.tolist() == [0, 0, 1]
    assert same(got.mask, want.mask) and same(got.truncated, want.truncated)
    for mine, theirs in zip(got.prompts, want.prompts, strict=True):
        assert (mine.text, mine.meta, mine.messages, mine.tools) == (
            (theirs.text, theirs.meta, theirs.messages, theirs.tools)
        )
        assert list(mine.media) == list(theirs.media) and all(same(mine.media[n], theirs.media[n]) for n in mine.media)
    assert got.prompts[0] is got.prompts[1]  # sent once


def test_files_have_eight_and_sixteen_bits_and_lengths() -> None:
    got = sent(rollout(PICTURES), "files")
    assert 0 < float((got.output - PICTURES).abs().max()) <= 0.5 / 255 + 1e-6
    sounds = sent(rollout(SOUNDS), "files").output
    assert sounds.rate == 16000 and same(sounds.mask, SOUNDS.mask)
    error = (sounds.samples - SOUNDS.samples)[SOUNDS.mask[:, None].expand_as(SOUNDS.samples)].abs().max()
    assert 0 < float(error) <= 2 / 2**15
    assert same(sent(rollout(["a", "b", "c"]), "files").output, ["a", "b", "c"])


def test_a_column_that_json_does_not_hold_is_refused() -> None:
    for value, words in ((torch.zeros(2), "meta.x: holds .*Tensor"), (math.nan, "nan"), ({1: 2}, "the key 1")):
        with pytest.raises(Malformed, match=words):
            message_of(Rollout.of([Prompt("p", meta={"x": value})], ["a"]), "r")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "another shape": ({"output": {"kind": "image", "tensor": "t0"}, "prompt": [0, 0]}, "is not 2 pictures"),
    "no such tensor": ({"output": {"kind": "image", "tensor": "t5"}}, "tensors hold no 't5'; they hold t0"),
    "a sound of a picture": ({"output": {"kind": "audio", "tensor": "t0", "rate": 8}}, "is not 1 sounds"),
    "no mask": ({"mask": "t0"}, "is no mask of 1 rows"),
    "no PNG": ({"output": {"kind": "image", "files": ["R0lGODlh"]}}, "is no PNG"),
    "half a PNG": ({"output": {"kind": "image", "files": ["iVBORw0KGgo="]}}, "output.files: "),
    "no FLAC": ({"output": {"kind": "audio", "files": ["R0lGODlh"]}}, "is no FLAC"),
    "half a FLAC": ({"output": {"kind": "audio", "files": ["ZkxhQwAA"]}}, "output.files: "),
    "a huge group": ({"group": [2**70]}, ""),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], words: str) -> None:
    message = message_of(Rollout.of(["p"], PICTURES[:1]), "r") | change

    def read() -> Rollout:
        return rollout_of(request_in(json.dumps(message).encode()), Limits())

    if not words:
        assert read().group.tolist() == [0]
        return
    with pytest.raises(Malformed, match=words):
        read()


def test_pictures_out_of_range_are_refused() -> None:
    with pytest.raises(Malformed, match="divide them by 255"):
        sent(Rollout([Prompt("p")], PICTURES[:1] * 255, torch.zeros(1, dtype=torch.long)))


def test_files_that_become_too_much_are_not_decoded() -> None:
    plain = Rollout.of(["p"] * 8, torch.zeros(8, 3, 256, 256))  # 180 bytes each as PNG
    with pytest.raises(TooLarge, match="decode to more than"):
        sent(plain, "files", Limits(bytes=1 << 20))


def test_scores_are_exact_and_a_number_too_few_is_no_answer() -> None:
    value = torch.tensor([1 / 3, math.nan, -1e-30, 1.0])
    status = torch.tensor([Status.OK, Status.TIMEOUT, Status.PARSE_FAIL, Status.OK], dtype=torch.int8)
    scores = Scores(
        value,
        status,
        confidence=torch.rand(4),
        per_step=torch.rand(4, 3),
        parts={"x": torch.tensor([math.inf, 0, 1, 2])},
    )
    scores.info = ["", "too late", "", ""]
    got = scores_in(json.loads(json.dumps(scores_out(scores), allow_nan=False)), 4)
    for f in fields(Scores):
        mine, theirs = getattr(got, f.name), getattr(scores, f.name)
        mine, theirs = (mine["x"], theirs["x"]) if f.name == "parts" else (mine, theirs)
        assert (
            torch.equal(mine.nan_to_num(7), theirs.nan_to_num(7)) if isinstance(mine, torch.Tensor) else mine == theirs
        )
    answer = scores_out(scores)
    for change, words in (
        ({"value": answer["value"][:3]}, "value: has 3 entries for 4 rows"),
        ({"status": [*answer["status"], "ok"]}, "status: has 5 entries"),
        ({"parts": {"x": []}}, "parts.x: has 0 entries"),
        ({"status": ["fine"] * 4}, "'fine' is none of ok"),
        ({"per_step": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, "not equally long"),
        ({"value": "many"}, "value: "),
    ):
        with pytest.raises(Malformed, match=words):
            scores_in(answer | change, 4)
