"""SDXL is told what was done to each given picture, in the numbers of diffusers' own training script."""

from __future__ import annotations

from pathlib import Path

import torch

from mmalign.adapters import adapters
from mmalign.core.types import Prompt
from mmalign.media.picture_fit import placement_of
from tests.adapters.tiny import write_tiny_sdxl


def test_time_ids_hold_the_own_size_the_crop_and_the_target(tmp_path: Path) -> None:
    adapter = adapters.get("sdxl")(model=str(write_tiny_sdxl(tmp_path)), device="cpu", train="frozen").load()
    side = adapter.height
    wide = placement_of((side * 2, side * 6), (side, side), "cover")
    prompts = [
        Prompt("a", placement=wide),
        Prompt("a"),
        Prompt("b", placement=placement_of((side, side), (side, side), "cover")),
    ]
    # original height and width; top and left of the crop in the scaled picture; height and width of the target
    expected = [
        [side * 2, side * 6, 0, side, side, side],
        [side, side, 0, 0, side, side],
        [side, side, 0, 0, side, side],
    ]
    assert adapter.encode(prompts)["time_ids"].tolist() == expected
    assert adapter.encode(prompts[1:2])["time_ids"].tolist() == expected[1:2]  # what is cached is not changed
    bands = placement_of((side, side * 2), (side, side), "contain")
    assert adapter.encode([Prompt("a", placement=bands)])["time_ids"].tolist() == [[side, side * 2, 0, 0, side, side]]
    assert torch.is_tensor(adapter.encode(prompts)["text_embeds"])
