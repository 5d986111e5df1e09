"""Everyday wordings: they differ from captions, mean what they mean, and every word of them has a token."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.colloquial import WAYS, colloquial, pairs, same_meaning
from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.grammar import CaptionError, parse, sample_request
from mmalign.miniworld.splits import WRONG, write_prompt_files
from pipelines.miniworld.scenes.train_rewriter import REWRITE, UNKNOWN, build_tokenizer, means

TRAIN = partial(sample_request, split="train")


@pytest.mark.parametrize(
    ("caption", "way", "holds", "lacks"),
    [
        ("a red star", "polite", "a red star", None),
        ("a red star", "synonyms", None, "red star"),
        ("two stars", "counts", "stars", "two"),
        ("a small star", "negation", "not large", "small"),
        ("a star above a circle", "pronouns", "the former above the latter", None),
        ("a star above a circle", "turned", "a circle below a star", "above"),
    ],
)
def test_each_way_of_asking(caption: str, way: str, holds: str | None, lacks: str | None) -> None:
    for seed in range(5):
        text = colloquial(parse(caption), np.random.default_rng(seed), (way,))
        assert text != caption and text == text.lower()
        assert holds is None or holds in text
        assert lacks is None or lacks not in text


def test_the_generators_grammar_reads_few_of_them() -> None:
    def readable(text: str) -> bool:
        try:
            return parse(text) is not None
        except CaptionError:
            return False

    found = pairs(300, 0, TRAIN)
    assert len({text for text, _ in found}) == 300 and found == pairs(300, 0, TRAIN)
    assert np.mean([readable(text) for text, _ in found]) < 0.15


def test_all_ways_are_drawn() -> None:
    said = " | ".join(text for text, _ in pairs(400, 1, TRAIN))
    for sign in ("please", "crimson", "a single", "not large", "the former", "plus also"):
        assert sign in said
    assert len(WAYS) == 6


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a star and a circle", "a circle and a star", True),
        ("a star left of a circle", "a circle right of a star", True),
        ("a star above a circle", "a circle below a star", True),
        ("a star above a circle", "a circle above a star", False),
        ("a star left of a circle", "a star and a circle", False),
        ("two stars", "three stars", False),
        ("a red star", "a star", False),
    ],
)
def test_meaning(one: str, other: str, same: bool) -> None:
    assert same_meaning(parse(one), parse(other)) is same_meaning(parse(other), parse(one)) is same
    assert means(one, parse(other)) is same
    assert not means("draw " + one, parse(one))


def test_every_word_has_a_token() -> None:
    tokenizer = build_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for text, request in pairs(300, 5, partial(sample_request, split="heldout")):
        ids = tokenizer(f"{text} {request.text}").input_ids
        assert unknown not in ids and tokenizer.decode(ids) == f"{text} {request.text}"


def test_the_rewriter_reads_with_its_own_tokenizer() -> None:
    from transformers import AutoTokenizer

    loaded, made = AutoTokenizer.from_pretrained(asset_path("scenes_rewriter")), build_tokenizer()
    asked = loaded.apply_chat_template([{"role": "user", "content": "a violet box"}], tokenize=False)
    assert asked == f"a violet box {REWRITE}"
    assert loaded(asked).input_ids == made(asked).input_ids
    assert loaded.get_vocab() == made.get_vocab()
    assert loaded.decode(loaded("a red star").input_ids) == "a red star"


def test_the_committed_files_are_the_splits(tmp_path) -> None:
    write_prompt_files(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_text() == asset_path(f"prompts/{path.name}").read_text()

    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    for part in ("train", "heldout"):
        requests = [row["request"] for row in rows(f"requests_{part}.jsonl")]
        assert all(bool(unseen_compositions(parse(request))) == (part == "heldout") for request in requests)
        contrasts = rows(f"contrasts_{part}.jsonl")
        assert [row["prompt"] for row in contrasts] == (tmp_path / f"scenes_{part}.txt").read_text().splitlines()
        for row in contrasts:
            assert len({row["prompt"], *row["negatives"]}) == 1 + WRONG
            assert part == "heldout" or not any(unseen_compositions(parse(text)) for text in row["negatives"])
