"""Held-out pictures are never those of training, and show unseen compositions or only seen ones, as asked."""

from typing import Any

import pytest
import torch

from mmalign.core.types import groups
from mmalign.data.sources.scenes import Scenes
from mmalign.miniworld import scenes
from mmalign.miniworld.compositions import unseen_compositions
from mmalign.miniworld.language import parse


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
