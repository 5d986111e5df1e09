"""The grammar head on captions of one's own: what is made of them is never one of them."""

import json

import pytest

from mmalign.core.errors import DataError
from mmalign.rewards.models.clip_towers import Source
from pipelines.grammar_head import apart, examples, main

OWN = [
    "a dog",
    "a dog runs",
    "a big dog runs",
    "a big  dog",
    "dog runs",
    "a dog and a cat",
    "a cat and a dog",
    "a cat",
] * 5
TINY = "assets/scenes_clip"


def test_no_negative_is_one_of_the_captions():
    """Removing "runs" from "a dog runs" leaves another caption; swapping makes a third."""
    plain, _, labels = examples(OWN, 3, lambda text: False, seed=0)
    own = {" ".join(caption.split()) for caption in OWN}
    assert any(text in own for text, right in zip(plain, labels.tolist(), strict=True) if not right)
    texts, ways, labels = examples(OWN, 3, apart(OWN, lambda text: text == "a runs"), seed=0)
    made = [text for text, right in zip(texts, labels.tolist(), strict=True) if not right]
    assert made and not set(made) & own and "a runs" not in made
    assert labels.sum().item() * 2 == len(labels) and len(ways) == len(texts)


@pytest.mark.parametrize("lines", [["a dog runs"], []])
def test_too_few_captions_are_told(lines, tmp_path):
    """One caption is the tenth that is measured on, which leaves none to train on."""
    with pytest.raises(
        DataError, match=rf"{len(lines)} captions: nothing ungrammatical can be made .*give more captions"
    ):
        main(lines, Source(TINY), tmp_path / "head", lambda text: False, steps=1)
    assert not (tmp_path / "head").exists()


def test_a_head_of_own_captions_is_written(tmp_path, capsys):
    lines = [f"a {colour} {shape}" for colour in ("red", "blue", "green", "large") for shape in ("circle", "square")]
    main(lines, Source(TINY), tmp_path / "head", lambda text: False, steps=2)
    held_out = json.loads((tmp_path / "head" / "provenance.json").read_text())["held_out"]
    assert json.loads(capsys.readouterr().out) == held_out
    assert "captions" in held_out and all(0 <= share <= 1 for share in held_out.values())
