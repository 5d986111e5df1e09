"""Held-out pictures are never those of training, and show unseen compositions or only seen ones, as asked."""

import pytest
import torch

from mmalign.data.sources.scenes import Scenes
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
