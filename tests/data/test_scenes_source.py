"""Held-out pictures are never those of training, and show unseen compositions or only seen ones, as asked."""

from typing import Any

import pytest
import torch

from mmalign.core.types import Example, groups
from mmalign.data.sources.scenes import Scenes
from mmalign.miniworld import scenes
from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.language import parse
from mmalign.miniworld.verifier import verify


@pytest.mark.parametrize("compositions", ["unseen", "seen"])
def test_compositions_of_held_out_pictures(compositions: str) -> None:
    source = Scenes("caption", count=12, held_out=12, compositions=compositions)  # type: ignore[arg-type]
    told = [parse(prompt.meta["references"][0]) for prompt in source.held_out_items()]
    assert all(bool(unseen_compositions(request)) == (compositions == "unseen") for request in told)
    trained = torch.stack([prompt.media["image"] for prompt in source.training_items()])
    for prompt in source.held_out_items():
        assert (trained - prompt.media["image"]).abs().amax((1, 2, 3)).min() > 0.01


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="compositions is 'new'; there is unseen, seen"):
        Scenes("caption", compositions="new")  # type: ignore[arg-type]


def test_nothing_is_painted_until_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[object] = []
    real = scenes.painted

    def noted(*given: Any) -> Any:
        painted.append(given)
        return real(*given)

    monkeypatch.setattr(scenes, "painted", noted)
    items = Scenes("boxes", count=5, held_out=3).training_items()
    assert len(items) == 5 and all(list(item.media) == ["image"] and item.meta["boxes"] for item in items)
    assert not painted
    assert torch.equal(items[2].media["image"], items[2].media["image"]) and len(painted) == 2
    assert groups([items[0], items[1], items[0]]).tolist() == [0, 1, 0]


def test_pictures_to_draw_have_what_their_captions_say_and_no_caption_in_common() -> None:
    made = Scenes(skill="draw", count=40, held_out=20)
    training, held_out = made.training_items(), made.held_out_items()
    assert len(training) == 40 and len(held_out) == 20
    rows = [row for row in [*training, *held_out] if isinstance(row, Example)]
    assert len(rows) == 60
    for row in rows:
        assert all(verify(row.output.numpy(), parse(row.prompt.text))), row.prompt.text
        assert unseen_compositions(parse(row.prompt.text))
    assert not {row.prompt.text for row in rows[:40]} & {row.prompt.text for row in rows[40:]}
    again = Scenes(skill="draw", count=40, held_out=20).training_items()
    assert all(torch.equal(one.output, two.output) for one, two in zip(rows, again, strict=False))
    assert Scenes(skill="draw", count=3, compositions="seen").training_items()[0].prompt.text != rows[0].prompt.text
